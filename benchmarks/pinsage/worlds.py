"""What a configuration of the search is trained on, published by the steps themselves; and what all are asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import polars as pl

from components.evaluation.related import HeldOut
from components.models.pinsage.recipe import PinSageRecipe
from components.recipe import RecipeInputs
from pinloom.datasets import DatasetSpec, load_dataset
from pinloom.lake import Lake, Manifest
from pinloom.settings import Settings, get_settings
from pinloom.steps.base import run_step
from pinloom.steps.graph import STEP as GRAPH
from pinloom.steps.job import open_lake
from pinloom.steps.neighbourhoods import STEP as NEIGHBOURHOODS
from pinloom.training.job import RecipeJob

PAIRS = {"next basket": ("actions",), "same basket": ("boards",), "both": ("actions", "boards")}
"""Which pairs are positive, by the sources of `graph.pairs`."""


@dataclass(frozen=True)
class World:
    """
    Attributes:
        pairs: a key of `PAIRS`.
        graph: fields of the data set's section `graph` that differ.
        walk: parameters of the step `neighbourhoods`.
    """

    pairs: str = "next basket"
    graph: dict[str, Any] = field(default_factory=dict)
    walk: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        return get_settings()

    @cached_property
    def spec(self) -> DatasetSpec:
        return load_dataset(self.settings.dataset)

    @cached_property
    def lake(self) -> Lake:
        return open_lake(self.settings, self.spec.name)

    @cached_property
    def features(self) -> Manifest:
        return self.lake.require("features")

    def built(self, source: str) -> Manifest:
        """The graph with the pairs of one source."""
        declared = self.spec.graph.model_dump(mode="json") | self.graph
        declared["pairs"] |= {"source": source}
        graph = type(self.spec.graph).model_validate(declared)
        spec = self.spec.model_copy(update={"graph": graph})
        return run_step(GRAPH, lake=self.lake, settings=self.settings, spec=spec, inputs={"features": self.features})

    def job(self, overrides: dict[str, Any], seed: int = 0) -> RecipeJob:
        graph = self.built(PAIRS[self.pairs][0])
        near = run_step(
            NEIGHBOURHOODS,
            lake=self.lake,
            settings=self.settings,
            spec=self.spec,
            params=self.walk,
            inputs={"graph": graph},
        )
        extras = graph, near
        return RecipeJob(
            PinSageRecipe, self.spec.contract, self.features, self.lake.root, "default", overrides, seed, extras
        )

    def inputs(self, overrides: dict[str, Any], seed: int = 0) -> RecipeInputs:
        """The tables of the job, with the training pairs of all sources and the validation pairs of each."""
        given = self.job(overrides, seed).inputs()
        tables: dict[str, list[str]] = dict(given.tables)
        tables["pairs/train"] = [f for source in PAIRS[self.pairs] for f in self.files(source, "train")]
        return replace(given, tables=tables)

    def files(self, source: str, split: str) -> list[str]:
        return [str(self.lake.local_path(u)) for u in self.built(source).output("pairs").partition(split)]

    def asked(self, source: str, split: str, most: int) -> HeldOut:
        """The pairs of a source as a question."""
        return HeldOut.of(pl.read_parquet(self.files(source, split)), most)

    def counted(self, source: str) -> pl.DataFrame:
        """The training pairs of a source."""
        return pl.read_parquet(self.files(source, "train"))
