"""A model that was trained on one day's snapshot serves the snapshots of later days, with the items that came since."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from components.errors import UserError
from pinloom.evaluation.scoring import items_for, open_artifact, open_items, open_rows, score
from pinloom.serving.compatibility import check_compatible
from pinloom.serving.gateway import create_app
from pinloom.serving.service import RankingService
from pinloom.settings import ServingSettings, Settings
from pinloom.steps.job import open_lake
from tests.platform.serving import planted
from tests.platform.serving.asking import AT, rank, recommend
from tests.platform.serving.world import KEY, World

NEW = "silk-new"


def later() -> pl.DataFrame:
    """The catalogue with an item more, which nobody has been shown yet."""
    made = planted.items().filter(pl.col("item_id") == "silk-0")
    return pl.concat([planted.items(), made.with_columns(item_id=pl.lit(NEW), title=pl.lit("silk number 99"))])


@pytest.fixture(scope="module")
def days(tmp_path_factory) -> World:
    """`features` is the day that the champion was trained on, `complete` the next one, with a new item."""
    home = tmp_path_factory.mktemp("days")
    settings = Settings(home=home, serving=ServingSettings(api_key=KEY))
    lake = open_lake(settings, planted.SPEC.name)
    log = planted.actions()
    blank = World(
        settings, lake, *[planted.publish(lake, log.filter(pl.col("timestamp").dt.date() < planted.LAST))] * 4
    )
    first = blank.step("features")
    champion = planted.train(lake, first, home / "scratch")
    planted.publish(lake, log, later(), key="next day")
    second = blank.step("features")
    online = blank.step("materialize", features=second)
    return replace(blank, features=first, complete=second, online=online, champion=champion)


@pytest.fixture(scope="module")
def refitted(days) -> World:
    """The snapshot of the next day, with an encoder of its own."""
    anew = days.step("features", {"encoder": "refit"})
    return replace(days, complete=anew, online=days.step("materialize", features=anew))


def test_the_model_of_the_first_day_serves_the_next_ones_snapshot(days):
    check_compatible(days.lake, days.champion, days.online)
    service = RankingService.load(days.args())
    with TestClient(create_app(service, None)) as client:
        ranked = rank(client, "user-2", [NEW, "silk-0", "felt-0", "linen-0"], at=AT)["ranked"]
        assert {r["item_id"] for r in ranked} == {NEW, "silk-0", "felt-0", "linen-0"}
        assert len({r["score"] for r in ranked}) == 4
        assert recommend(client, "user-2", k=5)["ranked"]
    vector = np.asarray(service.items.vectors, np.float32)
    new, like, other = service.items.rows([NEW, "silk-0", "felt-0"])
    assert vector[new] @ vector[like] > vector[new] @ vector[other] + 0.3


def test_a_snapshot_of_another_encoder_is_refused_with_both_versions_and_the_remedy(days, refitted):
    versions = [days.features.metrics["vectors"], refitted.complete.metrics["vectors"]]
    with pytest.raises(UserError, match=f"vector version is '{versions[1]}'.*trained with '{versions[0]}'") as e:
        refitted.step("deploy", champion=refitted.champion, online=refitted.online)
    assert "pinloom step features materialize" in e.value.remedy


def test_what_the_remedy_says_helps(days, refitted):
    again = days.step("materialize", features=days.step("features"))
    check_compatible(days.lake, days.champion, again)


def test_a_champion_is_scored_on_a_refitted_snapshot_as_on_one_of_its_own(days, refitted):
    artifact = open_artifact(days.lake, days.champion)
    own, other = (open_rows(days.lake, m, "test") for m in (days.complete, refitted.complete))
    wanted = score(artifact, own, items_for(days.lake, artifact, days.champion, days.complete))
    found = score(artifact, other, items_for(days.lake, artifact, days.champion, refitted.complete))
    np.testing.assert_array_equal(found.final, wanted.final)
    with_others = score(artifact, other, open_items(days.lake, refitted.complete))
    assert np.abs(with_others.final - wanted.final).max() > 1e-3, "the vectors matter"


def test_a_run_that_reads_other_vectors_than_its_features_have_is_named(days, refitted):
    artifact = replace(open_artifact(days.lake, days.champion), vectors="of somebody else")
    with pytest.raises(UserError, match="reads vectors 'of somebody else', its features have"):
        items_for(days.lake, artifact, days.champion, refitted.complete)
