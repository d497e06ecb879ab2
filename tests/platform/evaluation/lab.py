"""A planted log taken through features, training and evaluation once; and challengers with planted scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest

from components.contract import bucket_expr
from components.recipe import load_recipe
from pinloom.datasets.spec import DatasetSpec
from pinloom.lake import Lake, Manifest
from pinloom.registry import Registry
from pinloom.settings import Settings, TrainingSettings
from pinloom.steps.base import load_step, run_step
from pinloom.steps.job import open_lake
from pinloom.training.curves import write_curves
from pinloom.training.job import RecipeJob
from pinloom.training.local import run_local
from tests.platform.lake.examples import mirrored
from tests.platform.serving import planted


@dataclass(frozen=True)
class Lab:
    settings: Settings
    lake: Lake
    features: Manifest
    scratch: Path
    spec: DatasetSpec = planted.SPEC

    def step(self, name: str, params: dict[str, Any] | None = None, **inputs: Manifest) -> Manifest:
        return run_step(
            load_step(name), lake=self.lake, settings=self.settings, spec=self.spec, params=params, inputs=inputs
        )

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.settings, self.spec.name)

    @cached_property
    def trained(self) -> Manifest:
        return self.train("base")

    @cached_property
    def evaluated(self) -> Manifest:
        """With every section of the report, but few resamples."""
        return self.step("evaluate", {"resamples": 200}, train=self.trained)

    @cached_property
    def scores(self) -> pl.DataFrame:
        return pl.read_parquet(self.lake.local_paths(self.evaluated.output("scores")))

    @property
    def labels(self) -> pl.Series:
        """What was chosen: the planted oracle. Head 0 is the only positive one."""
        return (self.scores["labels"] & 1).cast(pl.Float32)

    def train(
        self, key: str, features: Manifest | None = None, seed: int = 0, recipe: str = "transact", **overrides: Any
    ) -> Manifest:
        """What `train` publishes, from the same loop in this process."""
        features = features or self.features
        read = load_recipe(recipe).extra_inputs
        extras = {name: self.lake.require(pointer.split("|")[0]) for name, pointer in read.items()}
        job = RecipeJob(
            recipe=load_recipe(recipe),
            contract=self.spec.contract,
            features=features,
            lake_root=self.lake.root,
            flavour="debug",
            overrides=overrides,
            seed=seed,
            extras=tuple(extras.values()),
        )
        folder = self.scratch / key
        state = run_local(job(), folder)
        artifact, curves = (self.lake.writer("train", key, name, "0") for name in ("artifact", "curves"))
        for file in sorted((folder / "checkpoint" / "artifact").iterdir()):
            artifact.upload(file)
        for file in write_curves(state.curve, folder):
            curves.upload(file)
        return self.lake.publish(
            Manifest(
                step="train",
                version=1,
                key=key,
                created_at=datetime.now(UTC),
                inputs={name: self.ref(m) for name, m in {"features": features, **extras}.items()},
                params={"recipe": recipe, "flavour": "debug", "overrides": overrides, "seed": seed, "workers": 1},
                outputs={"artifact": artifact.output(), "curves": curves.output()},
            )
        )

    def run(self, key: str, features: Manifest | None = None) -> Manifest:
        """Another run with the weights of `trained`."""
        inputs = dict(self.trained.inputs)
        if features is not None:
            inputs["features"] = self.ref(features)
        return self.lake.publish(self.trained.model_copy(update={"key": key, "inputs": inputs}))

    def challenge(
        self, recipe: str, key: str, score: Callable[[pl.DataFrame], pl.Series], split: str = "test"
    ) -> Manifest:
        """An evaluation of run `key` of `recipe` with planted final scores; `recipe` keeps tests apart."""
        train = self.run(f"{recipe}-{key}")
        writer = self.lake.writer("evaluate", f"{recipe}-{key}", "scores", "0")
        writer.parquet("scores.parquet", self.scores.with_columns(score(self.scores).alias(f"score/{recipe}")))
        inputs = {"train": self.ref(train), "features": self.ref(self.features)}
        manifest = Manifest(
            step="evaluate",
            version=1,
            key=f"{recipe}-{key}",
            created_at=datetime.now(UTC),
            inputs=inputs,
            params={**self.evaluated.params, "recipe": recipe, "split": split},
            outputs={"scores": writer.output()},
        )
        published = self.lake.publish(manifest)
        return self.lake.advance(f"evaluations/{recipe}", lambda _: published)

    def in_memory(self, home: Path) -> Self:
        """The lab on a store where no file lies beside another until it is fetched; with a registry of its own."""
        lake = mirrored(self.lake)
        return replace(
            self,
            settings=self.settings.model_copy(update={"home": home}),
            lake=lake,
            features=lake.manifest(self.features.uri.replace(self.lake.root, lake.root)),
            scratch=home,
        )

    def ref(self, manifest: Manifest) -> dict[str, str]:
        return {"uri": manifest.uri, "sha256": manifest.content_hash()}


def build(home: Path, log: pl.DataFrame | None = None, spec: DatasetSpec = planted.SPEC) -> Lab:
    settings = Settings(home=home, training=TrainingSettings(workers=1, log_every_s=60))
    lake = open_lake(settings, spec.name)
    publish(lake, planted.actions() if log is None else log)
    features = run_step(load_step("features"), lake=lake, settings=settings, spec=spec)
    (home / "scratch").mkdir()
    return Lab(settings, lake, features, home / "scratch", spec)


def publish(lake: Lake, log: pl.DataFrame) -> None:
    """The table `actions`, with every item as what each request of the test split could have shown."""
    actions = planted.publish(lake, log)
    start, stop = planted.SPEC.contract.splits.interval("test")
    asked = log.filter(pl.col("action") == "seen", pl.col("timestamp").is_between(start, stop, closed="left"))
    requests = asked.select("request_id", "user_id", "timestamp").unique().sort("user_id", "timestamp")
    buckets = bucket_expr(requests["user_id"], planted.SPEC.contract.buckets)
    everything = pl.Series("item_ids", [planted.items()["item_id"].to_list()] * requests.height)
    writer = lake.writer("validate", "planted", "requests", "0")
    writer.parquet("requests.parquet", requests.with_columns(buckets, everything).sort("bucket"))
    outputs = {**actions.outputs, "requests": writer.output()}
    table = lake.publish(actions.model_copy(update={"key": "with-requests", "outputs": outputs}))
    lake.advance("actions", lambda _: table)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return build(tmp_path_factory.mktemp("evaluation"))
