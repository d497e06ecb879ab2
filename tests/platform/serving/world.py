"""A planted log taken through features, online store and training: what `deploy` needs, built once a session."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pinloom.lake import Lake, Manifest
from pinloom.serving.config import AppArgs, passed_on
from pinloom.settings import ServingSettings, Settings
from pinloom.steps.base import load_step, run_step
from pinloom.steps.job import open_lake
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
