"""The ranker with PinFM, served through DCAT: as offline, whatever is kept of a user, until the user acts."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from components.contract import midnight
from components.errors import UserError
from components.history.items import ItemTable
from pinloom.serving.gateway import create_app
from pinloom.serving.service import RankingService
from pinloom.settings import ServingSettings
from pinloom.steps.base import World as Open
from pinloom.steps.base import load_step
from tests.platform.serving import planted
from tests.platform.serving.asking import action, post, rank, scores
from tests.platform.serving.conftest import serve
from tests.platform.serving.test_parity import offline_scores, online_scores


@pytest.fixture(scope="module")
def champion(world, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("pinfm")
    base = planted.publish_base(world.lake, scratch)
    return planted.train(world.lake, world.features, scratch, key="with-pinfm", family="pinfm_ranker", base=base)


@pytest.fixture
def service(world, champion, tmp_path) -> RankingService:
    return serve(world, tmp_path, champion=champion.uri)


@pytest.fixture
def client(service):
    with TestClient(create_app(service, None)) as client:
        yield client


def module_of(service: RankingService):
    return service.loaded.artifact.model.modules_by_name["pinfm"]


def last_day(world) -> tuple[pl.DataFrame, ItemTable]:
    files = world.lake.local_paths(world.complete.output("examples"))
    rows = pl.concat([pl.read_parquet(f) for f in files if "test-" in f])
    items = ItemTable.load({f.rsplit("/", 1)[-1]: f for f in world.lake.local_paths(world.complete.output("items"))})
    return rows.filter(pl.col("timestamp") >= midnight(planted.LAST)), items


def test_offline_and_online_agree_with_kept_contexts_and_after_actions_by_http(client, service, world):
    rows, items = last_day(world)
    module = module_of(service)
    morning, afternoon = (rows.filter(pl.col("timestamp").dt.hour() == hour) for hour in (9, 15))
    for _ in range(2):
        online = np.concatenate([online_scores(client, service, r, items) for r in morning.iter_rows(named=True)])
        np.testing.assert_allclose(online, offline_scores(service, morning, items), atol=1e-5, rtol=0)
    assert module.cache.hits >= morning.height
    stale = np.concatenate([online_scores(client, service, r, items) for r in afternoon.iter_rows(named=True)])
    today = planted.actions().filter(pl.col("timestamp") >= midnight(planted.LAST))
    columns = ["event_id", "user_id", "item_id", "action", "timestamp", "surface", "request_id"]
    for part in today.select(columns).iter_slices(500):
        post(client, *({**r, "timestamp": r["timestamp"].isoformat()} for r in part.iter_rows(named=True)))
    online = np.concatenate([online_scores(client, service, r, items) for r in afternoon.iter_rows(named=True)])
    expected = offline_scores(service, afternoon, items)
    np.testing.assert_allclose(online, expected, atol=1e-5, rtol=0)
    assert np.abs(stale - expected).max() > 1e-4


def test_a_context_serves_until_the_user_acts(client, service):
    module = module_of(service)
    rank(client, at="2026-03-01T00:00:00Z")
    hits, misses = module.cache.hits, module.cache.misses
    before = scores(rank(client, at="2026-03-01T00:00:00Z"))
    assert (module.cache.hits, module.cache.misses) == (hits + 1, misses)
    post(client, action("new", item="felt-3"))
    after = scores(rank(client, at="2026-03-01T00:00:00Z"))
    assert module.cache.misses == misses + 1
    assert after != before
    assert len(module.cache) <= len(planted.USERS)


def test_without_room_nothing_is_kept_and_scores_are_the_same(world, champion, client, tmp_path):
    settings = world.settings.model_copy(update={"serving": ServingSettings(context_cache_mb=0)})
    bare = serve(replace(world, settings=settings), tmp_path / "bare", champion=champion.uri)
    with TestClient(create_app(bare, None)) as other:
        for _ in range(2):
            kept, fresh = scores(rank(client)), scores(rank(other))
            assert fresh == pytest.approx(kept, abs=1e-6)
    assert module_of(bare).cache is None


def test_the_models_page_says_which_ranker_serves(client, champion):
    (said,) = client.get("/v1/models").json()
    assert (said["name"], said["key"]) == ("pinfm_ranker", champion.key)


CHOICES = [("transact", "", "run-0"), ("pinfm_ranker", "", "with-pinfm"), ("transact", "pinfm_ranker", "with-pinfm")]


@pytest.mark.parametrize(("setting", "asked", "expected"), CHOICES)
def test_deploy_takes_the_champion_of_the_recipe_that_is_set_or_asked_for(world, champion, setting, asked, expected):
    step = load_step("deploy")
    serving = world.settings.serving.model_copy(update={"recipe": setting})
    settings = world.settings.model_copy(update={"serving": serving})
    now = Open(world.lake, settings, planted.SPEC, step, {})
    params = step.complete(step.params(recipe=asked), now)
    assert now.given["champion"].key == expected
    assert params.recipe == (asked or setting)


def test_a_champion_that_ranks_nothing_is_not_deployed(world, champion):
    step = load_step("deploy")
    now = Open(world.lake, world.settings, planted.SPEC, step, {})
    with pytest.raises(UserError, match="is a 'pinfm', which ranks nothing"):
        step.complete(step.params(recipe="pinfm"), now)
