"""Which recipe on which features: what travels to the workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.contract import Contract
from components.history.schema import FeatureSchema
from components.recipe import Recipe, RecipeInputs, configure
from pinloom.lake import Lake, Manifest


class LakeTables(Mapping[str, list[str]]):
    """Local files by table name, fetched by the process that asks for them: a worker may be on another machine.

    `<output>` has all files of an output, `<output>/<partition>` those of one partition.
    """

    def __init__(self, lake_root: str, *manifests: Manifest) -> None:
        self._root = lake_root
        self._uris: dict[str, list[str]] = {}
        for name, output in (item for m in manifests for item in m.outputs.items()):
            assert name not in self._uris, f"two inputs have an output '{name}'"
            self._uris[name] = output.uris
            for partition in filter(None, output.partitions()):
                self._uris[f"{name}/{partition}"] = output.partition(partition)

    def __getitem__(self, name: str) -> list[str]:
        lake = Lake(self._root)
        return [str(lake.local_path(uri)) for uri in self._uris[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._uris)

    def __len__(self) -> int:
        return len(self._uris)


@dataclass(frozen=True)
class RecipeJob:
    """Called on a worker, makes the recipe.

    Attributes:
        extras: manifests of the recipe's `extra_inputs`.

    Raises:
        UserError: unknown flavour or field of its config.
    """

    recipe: type[Recipe[Any]]
    contract: Contract
    features: Manifest
    lake_root: str
    flavour: str = "default"
    overrides: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    extras: tuple[Manifest, ...] = ()

    def __call__(self) -> Recipe[Any]:
        return configure(self.recipe, self.inputs(), self.flavour, self.overrides)

    def inputs(self) -> RecipeInputs:
        tables = LakeTables(self.lake_root, self.features, *self.extras)
        return RecipeInputs(
            contract=self.contract,
            tables=tables,
            feature_service=FeatureSchema.load(tables["schema"][0]).service,
            vectors=str(self.features.metrics["vectors"]),
            seed=self.seed,
            params={made.step: made.params for made in (self.features, *self.extras)},
        )
