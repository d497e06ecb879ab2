"""A planted log taken through features and training, once a session: what `evaluate` and `promote` need."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.recipe import load_recipe
from pinloom.lake import Lake, Manifest
from pinloom.settings import Settings, TrainingSettings
from pinloom.steps.base import load_step, run_step
from pinloom.steps.job import open_lake
from pinloom.training.curves import write_curves
from pinloom.training.job import RecipeJob
from pinloom.training.local import run_local
from tests.platform.serving import planted


@dataclass(frozen=True)
class World:
    settings: Settings
    lake: Lake
    features: Manifest
    scratch: Path
    spec: Any = planted.SPEC

    def step(self, name: str, params: dict[str, Any] | None = None, **inputs: Manifest) -> Manifest:
        return run_step(
            load_step(name), lake=self.lake, settings=self.settings, spec=self.spec, params=params, inputs=inputs
        )

    def train(self, key: str, features: Manifest | None = None, seed: int = 0, **overrides: Any) -> Manifest:
        """What `train` publishes, from the same loop in this process."""
        features = features or self.features
        job = RecipeJob(
            recipe=load_recipe("transact"),
            contract=self.spec.contract,
            features=features,
            lake_root=self.lake.root,
            flavour="debug",
            overrides=overrides,
            seed=seed,
        )
        folder = self.scratch / key
        state = run_local(job(), folder)
        artifact, curves = (self.lake.writer("train", key, name, "0") for name in ("artifact", "curves"))
        for file in sorted((folder / "checkpoint" / "artifact").iterdir()):
            artifact.upload(file)
        for file in write_curves(state.curve, folder):
            curves.upload(file)
        manifest = self.lake.publish(
            Manifest(
                step="train",
                version=1,
                key=key,
                created_at=datetime.now(UTC),
                inputs={"features": {"uri": features.uri, "sha256": features.content_hash()}},
                params={"recipe": "transact", "flavour": "debug", "overrides": overrides, "seed": seed, "workers": 1},
                outputs={"artifact": artifact.output(), "curves": curves.output()},
            )
        )
        return self.lake.advance("runs/transact", lambda _: manifest)


def build(home: Path, spec: Any = planted.SPEC, seed: int = 0) -> World:
    settings = Settings(home=home, training=TrainingSettings(workers=1, log_every_s=60))
    lake = open_lake(settings, spec.name)
    planted.publish(lake, planted.actions(seed))
    features = run_step(load_step("features"), lake=lake, settings=settings, spec=spec)
    (home / "scratch").mkdir()
    return World(settings, lake, features, home / "scratch", spec)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("evaluation"))
