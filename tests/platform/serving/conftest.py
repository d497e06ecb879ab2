"""The planted world behind an endpoint in this process."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pinloom.serving.gateway import create_app
from pinloom.serving.service import RankingService
from tests.platform.serving.world import World


@pytest.fixture
def service(world, tmp_path) -> RankingService:
    """The served champion over an online store of this test alone."""
    return serve(world, tmp_path)


def serve(world: World, home: Path, **args) -> RankingService:
    """A service over an online store of its own."""
    fresh = replace(world, settings=world.settings.model_copy(update={"home": home}))
    fresh.step("materialize", features=world.features)
    return RankingService.load(fresh.args(**args))


@pytest.fixture
def client(service) -> Iterator[TestClient]:
    with TestClient(create_app(service, None)) as client:
        yield client
