"""What a replica holds: the champion, the item table, the online store. Loaded once, read by every request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Self

from components.contract import Contract
from components.errors import UserError
from components.history.build import Example
from components.history.items import ItemTable
from components.history.schema import FeatureSchema
from components.models.ranker.artifact import RankerArtifact, load_ranker
from components.models.ranker.data import collate_example
from pinloom.features.online import OnlineFeatures
from pinloom.lake import Lake, Manifest
from pinloom.serving.compatibility import check_compatible
from pinloom.serving.config import AppArgs
from pinloom.serving.schemas import ServedModel

if TYPE_CHECKING:
    from pinloom.serving.related import RelatedItems


@dataclass(frozen=True)
class Loaded:
    """The parts of a deployment, checked to fit together.

    Attributes:
        schema: the artifact's, its sequence as long as the model reads.
        earliest: UTC day before which no action's timestamp is believed.
        related: None without an index.
    """

    contract: Contract
    lake: Lake
    artifact: RankerArtifact
    schema: FeatureSchema
    online: OnlineFeatures
    model: ServedModel
    earliest: date
    related: RelatedItems | None = None
    sample_users: tuple[str, ...] = ()

    @property
    def items(self) -> ItemTable:
        """Memory-mapped: the replicas of a machine share its pages."""
        return self.online.items

    @classmethod
    def load(cls, args: AppArgs) -> Self:
        """Open what the configuration names.

        Raises:
            UserError: a part is missing or broken, or the parts do not fit together.
        """
        lake = Lake(args.lake)
        champion, online = lake.manifest(args.champion), lake.manifest(args.online)
        check_compatible(lake, champion, online)
        artifact, settings = _artifact(lake, champion), args.load_settings()
        artifact.model.remember(settings.serving.context_cache_mb * 2**20)
        features = OnlineFeatures(settings, online)
        rows = artifact.schema.sequence_length
        return cls(
            contract=args.contract,
            lake=lake,
            artifact=artifact,
            schema=replace(artifact.schema, sequence_length=min(artifact.config.window or rows, rows)),
            online=features,
            model=_describe(args, artifact, champion, len(features.items) - 1),
            earliest=args.earliest,
            related=_related(lake, args.index, features),
            sample_users=args.sample_users,
        )

    def score(self, example: Example, at: int) -> tuple[list[list[float]], list[float]]:
        """Probabilities [n][heads] and final scores [n] of the candidates of one request, in one model call.

        Args:
            at: moment of the request, µs since epoch.
        """
        probability, final = self.artifact.score(collate_example(example, at, self.items, self.schema))
        return probability.tolist(), final.tolist()


def _related(lake: Lake, index: str | None, online: OnlineFeatures) -> RelatedItems | None:
    if index is None:
        return None
    # A replica without an index pays for no search engine.
    from pinloom.serving.related import RelatedItems

    return RelatedItems.load(lake, lake.manifest(index), online.items, online.schema)


def _artifact(lake: Lake, champion: Manifest) -> RankerArtifact:
    folder = lake.local_folder(champion.output("artifact"))
    try:
        return load_ranker(folder)
    except UserError:
        raise
    except Exception as e:
        # safetensors, torch and json each have their own error for bytes that are not a model.
        raise UserError(
            f"the artifact of {champion.uri} cannot be loaded: {type(e).__name__}: {e}",
            "train and promote again, or move the alias back to a version that serves",
        ) from e


def _describe(args: AppArgs, artifact: RankerArtifact, champion: Manifest, items: int) -> ServedModel:
    return ServedModel(
        name=artifact.recipe,
        key=champion.key,
        champion=champion.uri,
        snapshot=args.online,
        feature_service=artifact.feature_service,
        vectors=artifact.vectors,
        heads=dict(zip(artifact.heads, artifact.utilities, strict=True)),
        items=items,
        deployment=args.deployment,
        index=args.index,
    )
