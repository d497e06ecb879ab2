"""A planted log taken through features, online store and training: what `deploy` needs, built once a session."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from components.recipe import load_recipe
from pinloom.lake import Lake, Manifest
from pinloom.serving.config import AppArgs, passed_on
from pinloom.settings import ServingSettings, Settings
from pinloom.steps.base import load_step, run_step
from pinloom.steps.job import open_lake
from pinloom.training.job import RecipeJob
from pinloom.training.local import run_local
from tests.platform.serving import planted

KEY = "a-key-of-more-than-16-characters"


@dataclass(frozen=True)
class World:
    """A lake with everything that `deploy` needs.

    Attributes:
        features: as of the last midnight of the planted log, so that its last day is the future.
        complete: features of the whole log: the offline side of requests on that day.
    """

    settings: Settings
    lake: Lake
    features: Manifest
    complete: Manifest
    online: Manifest
    champion: Manifest

    def step(self, name: str, params=None, **inputs: Manifest) -> Manifest:
        return run_step(
            load_step(name), lake=self.lake, settings=self.settings, spec=planted.SPEC, params=params, inputs=inputs
        )

    def args(self, **changed) -> AppArgs:
        args = AppArgs(
            contract=planted.SPEC.contract,
            lake=self.lake.root,
            champion=self.champion.uri,
            online=self.online.uri,
            key_sha256=None,
            settings=passed_on(self.settings),
            deployment="in-process",
            sample_users=tuple(planted.USERS[:3]),
        )
        return args.model_copy(update=changed)

    def pinsage(self, scratch: Path) -> Manifest:
        """What `train` publishes for a short PinSage on these features, its graph and its neighbourhoods."""
        graph = self.step("graph", features=self.features)
        near = self.step("neighbourhoods", {"top": 8, "walks": 32, "band_size": 4}, graph=graph)
        recipe = load_recipe("pinsage")
        few = {"neighbours": 8, "negatives": 30, "batch": 64, "steps_per_epoch": 10, "epochs": 2}
        job = RecipeJob(
            recipe, planted.SPEC.contract, self.features, self.lake.root, "debug", few, extras=(graph, near)
        )
        run_local(job(), scratch)
        artifact = self.lake.writer("train", "pinsage", "artifact", "0")
        for file in sorted((scratch / "checkpoint" / "artifact").iterdir()):
            artifact.upload(file)
        inputs = {"features": {"uri": self.features.uri, "sha256": self.features.content_hash()}}
        outputs = {"artifact": artifact}
        return planted.advance(self.lake, "runs/pinsage", "train", outputs, key="pinsage", inputs=inputs)


@pytest.fixture(scope="session")
def index(world, tmp_path_factory) -> Manifest:
    """An index over PinSage's vectors of the world's items."""
    train = world.pinsage(tmp_path_factory.mktemp("pinsage"))
    embedded = world.step("embed", features=world.features, train=train)
    return world.step("index", {"k": 10}, embed=embedded)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    home: Path = tmp_path_factory.mktemp("serving")
    settings = Settings(home=home, serving=ServingSettings(api_key=KEY))
    lake = open_lake(settings, planted.SPEC.name)
    log = planted.actions()
    logging.getLogger("pinloom").setLevel(logging.WARNING)
    steps = World(settings, lake, *[planted.publish(lake, log)] * 4)
    complete = steps.step("features")
    features = steps.step("features", {"as_of": planted.LAST.isoformat()})
    online = steps.step("materialize", features=features)
    champion = planted.train(lake, features, home / "scratch")
    return replace(steps, features=features, complete=complete, online=online, champion=champion)
