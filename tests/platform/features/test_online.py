"""The online store as serving uses it: nothing is lost, nothing counts twice, and it agrees with the training rows."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing.pool import Pool

import numpy as np
import polars as pl
import pytest

from components.contract import ACTIONS
from components.history.build import build_example
from components.history.keys import key
from components.history.schema import id_hash
from pinloom.features.online import OnlineFeatures
from pinloom.lake import Manifest
from pinloom.settings import Settings
from tests.platform.features import small

NOW = datetime(small.LAST.year, small.LAST.month, small.LAST.day, 12, tzinfo=UTC)
USER = small.USERS[0]


def posted(*events: str, user: str = USER, item: str = small.ITEM_IDS[3], action: str = "like") -> pl.DataFrame:
    rows = [
        {
            "event_id": e,
            "user_id": user,
            "item_id": item,
            "action": action,
            "timestamp": NOW + timedelta(seconds=i),
            "surface": "app",
        }
        for i, e in enumerate(events)
    ]
    return pl.DataFrame(rows, schema=ACTIONS)


def test_a_posted_action_is_the_newest_of_the_history_and_the_snapshot_stays(world):
    online = world.open()
    before = online.history(USER)
    assert len(before) > 10
    assert online.append(posted("new")) == 1
    after = online.history(USER)
    assert after.event.tolist() == [key("new"), *before.event.tolist()]
    assert online.items.ids[int(after.item[0])] == small.ITEM_IDS[3]
    assert after.surface[0] == id_hash("app")
    assert world.open().history(USER).event.tolist() == after.event.tolist()


def test_an_event_counts_once_however_often_it_is_posted(world):
    online = world.open()
    assert online.append(posted("a", "b", "a")) == 2
    assert online.append(posted("b", "c")) == 1
    known = small.actions().filter(pl.col("user_id") == USER, pl.col("action") == "like").head(1)
    assert online.append(known) == 0
    assert [e in online.history(USER).event for e in map(key, "abc")] == [True] * 3
    assert len(np.unique(online.history(USER).event)) == len(online.history(USER))


def test_exposures_never_enter_a_history(world):
    online = world.open()
    assert online.append(posted("seen", action="view")) == 0
    assert key("seen") not in online.history(USER).event


def test_users_and_items_that_nobody_knows_have_a_defined_answer(world):
    online = world.open()
    assert len(online.history("nobody")) == 0
    assert online.append(posted("x", user="nobody", item="no such item")) == 1
    assert online.history("nobody").item.tolist() == [0]


def test_several_users_may_be_in_one_post(world):
    online = world.open()
    assert online.append(pl.concat([posted("x"), posted("y", user=small.USERS[1]), posted("z")])) == 3
    assert set(map(key, "xz")) <= set(online.history(USER).event.tolist())
    assert key("y") in online.history(small.USERS[1]).event


def test_the_latest_actions_are_kept_when_there_are_more_than_a_history_holds(world):
    online = world.open()
    object.__setattr__(online.schema, "max_history", 4)
    online.append(posted(*(f"e{i}" for i in range(6))))
    assert online.history(USER).event.tolist() == [key(f"e{i}") for i in (5, 4, 3, 2)]


def _post(settings: Settings, manifest: Manifest, names: list[str]) -> int:
    online = OnlineFeatures(settings, manifest)
    with ThreadPoolExecutor(6) as pool:
        return sum(pool.map(lambda name: online.append(posted(name)), names))


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Pool]:
    """Another process, which has imported what it needs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(len, ("up",)) == 2
        yield pool


@pytest.mark.timeout(600)  # the other process imports Feast first
def test_fifty_concurrent_posts_for_one_user_keep_fifty(world, elsewhere):
    before = set(world.open().history(USER).event.tolist())
    names = [f"post-{i}" for i in range(50)]
    assert elsewhere.apply(_post, (world.settings, world.online, [])) == 0
    theirs = elsewhere.apply_async(_post, (world.settings, world.online, names[::2]))
    assert _post(world.settings, world.online, names[1::2]) == 25
    assert theirs.get(60) == 25
    after = world.open().history(USER)
    assert set(after.event.tolist()) == before | set(map(key, names))
    assert len(after) == len(before) + 50


def test_a_materialization_after_posts_loses_nothing_and_counts_nothing_twice(world, published):
    lake, spec, *_ = published
    day = small.actions().filter(pl.col("timestamp").dt.date() == small.LAST, pl.col("user_id") == USER)
    online = world.open()
    online.append(pl.concat([day, posted("only here")]))
    before = online.history(USER)
    world.open().store.feast.materialize(NOW - timedelta(days=30), NOW)
    assert world.open().history(USER).event.tolist() == before.event.tolist()
    newer = small.run(lake, world.settings, spec, "features")
    later = world.materialize(features=newer).open()
    assert later.history(USER).event.tolist() == before.event.tolist()
    assert later.append(posted("one more")) == 1
    assert _tail(later) == {key("only here"), key("one more")}
    assert len(later.history(USER)) == len(before) + 1
    older = world.materialize(features=world.features).open()
    assert key("only here") in older.history(USER).event


def _tail(online: OnlineFeatures) -> set[int]:
    row = online.store.read("user_history_tail", [USER], ["event"])[0]
    assert row is not None
    return set(row["event"].tolist())


def test_snapshot_tail_and_training_rows_agree_on_every_request_of_a_day(world, published):
    """Offline rows of the last day against the snapshot before it plus what was posted since."""
    lake, spec, *_ = published
    whole = small.run(lake, world.settings, spec, "features")
    rows = small.read(lake, whole, "examples", "test").filter(pl.col("timestamp").dt.date() == small.LAST)
    log = small.actions().filter(pl.col("timestamp").dt.date() == small.LAST)
    online = world.open()
    online.append(log.filter(pl.col("user_id").is_in(rows["user_id"].unique().implode())))
    assert rows.height > 50
    for row in rows.iter_rows(named=True):
        example = build_example(
            online.history(row["user_id"]),
            np.array(row["candidate_item"], np.int32),
            int(row["timestamp"].timestamp() * 1e6),
            online.items,
            online.schema,
            user_id=row["user_id"],
            surface=np.array(row["candidate_surface"], np.int32),
        )
        for name, value in example.columns().items():
            np.testing.assert_allclose(row[name], value, atol=1e-6, err_msg=name)


def test_repeated_reads_do_not_grow(world):
    """Feast's Redis store appends to the list of features that it is given (feast #6841)."""
    online = world.open()
    asked = ["event"]
    for _ in range(50):
        online.store.read("user_history", [USER], asked)
    assert asked == ["event"]
    assert all(len(view.features) < 10 for view in online.store.feast.list_feature_views())
