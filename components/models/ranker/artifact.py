"""A trained ranker as files, enough to serve."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.contract import Contract
from components.errors import UserError
from components.history.schema import FeatureSchema
from components.models.artifact import (
    DESCRIPTION,
    FORMAT,
    describe_artifact,
    fill,
    refuse_other_version,
    save_artifact,
)
from components.models.ranker.batch import RankingBatch
from components.models.ranker.config import RankerConfig
from components.models.ranker.model import Ranker
from components.nn.hashed import without_rows

MODULES = "sequences"
"""Of a `Ranker`: where the weights of its sequence modules stand."""

Builder = Callable[[Any, FeatureSchema], Ranker]


@dataclass(frozen=True)
class RankerArtifact:
    """A ranker ready to score.

    Attributes:
        recipe: name of the recipe that trained it.
        heads: ranking heads; `utilities` their weights in the final score.
        feature_service, vectors: features and item vectors it was trained with; serving refuses others.
        negative_sampling_rate: share of rows without action that training kept on average. Recorded only: the loss
            corrects for it request by request, so that logits are those of the population.
    """

    model: Ranker
    recipe: str
    config: RankerConfig
    schema: FeatureSchema
    heads: tuple[str, ...]
    utilities: tuple[float, ...]
    feature_service: str
    vectors: str
    negative_sampling_rate: float

    @torch.inference_mode()
    def score(self, batch: RankingBatch) -> tuple[Tensor, Tensor]:
        """Probabilities [B, H] of the heads, calibrated to the population, and final scores [B] = Σ utility · p."""
        probability = torch.sigmoid(self.model(batch))
        return probability, probability @ torch.tensor(self.utilities, device=probability.device)


def save_ranker(
    folder: Path,
    model: Ranker,
    config: RankerConfig,
    *,
    recipe: str,
    contract: Contract,
    schema: FeatureSchema,
    vectors: str,
    feature_service: str,
    negative_sampling_rate: float,
) -> None:
    """Write the files of an artifact into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    elsewhere = {f"{MODULES}.{n}.{w}" for n, m in model.modules_by_name.items() for w in m.export_own(folder)}
    said = {
        "recipe": recipe,
        "format": FORMAT,
        "config": asdict(config),
        "heads": contract.heads,
        "utilities": [contract.head_utility[h] for h in contract.heads],
        "schema": asdict(schema),
        "feature_service": feature_service,
        "vectors": vectors,
        "negative_sampling_rate": negative_sampling_rate,
    }
    save_artifact(folder, model, said, without=elsewhere)


def load_ranker(folder: str | Path) -> RankerArtifact:
    """Open an artifact, in evaluation mode, on the CPU.

    Raises:
        UserError: the folder holds no artifact, or one of another family or version of the code.
    """
    said = describe_artifact(folder)
    if not said:
        raise UserError(f"{folder} holds no {DESCRIPTION}", "give the folder of a trained model's artifact")
    config_type, build = _family(said["recipe"])
    refuse_other_version(folder, said, config_type)
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said["config"].items()}
    config = config_type(**values)
    schema = FeatureSchema.from_json(json.dumps(said["schema"]))
    with without_rows():
        model = build(config, schema)
    elsewhere = {f"{MODULES}.{n}.{w}" for n, m in model.modules_by_name.items() for w in m.load_own(Path(folder))}
    fill(model, folder, without=elsewhere, mapped=True)
    return RankerArtifact(
        model=model.eval(),
        recipe=said["recipe"],
        config=config,
        schema=schema,
        heads=tuple(said["heads"]),
        utilities=tuple(said["utilities"]),
        feature_service=said["feature_service"],
        vectors=said["vectors"],
        negative_sampling_rate=said["negative_sampling_rate"],
    )


def _family(recipe: str) -> tuple[type[RankerConfig], Builder]:
    """Config type and builder of a recipe whose model is a `Ranker`."""
    from components.recipe import load_recipe

    cls = load_recipe(recipe)
    if not hasattr(cls, "build_ranker"):
        raise UserError(f"recipe '{recipe}' does not train a ranker", "give the artifact of a ranking recipe")
    return cls.config_type, cls.build_ranker
