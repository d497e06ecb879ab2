"""The planted world behind an endpoint in this process."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from pinloom.serving.gateway import create_app
from pinloom.serving.service import RankingService


@pytest.fixture
def service(world, tmp_path) -> RankingService:
    """The served champion over an online store of this test alone."""
    fresh = replace(world, settings=world.settings.model_copy(update={"home": tmp_path}))
    fresh.step("materialize", features=world.features)
    return RankingService.load(fresh.args())


@pytest.fixture
def client(service) -> Iterator[TestClient]:
    with TestClient(create_app(service, None)) as client:
        yield client
