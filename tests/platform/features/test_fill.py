"""The bucket-wise fill against Feast's own materialization; users who vanish from the log leave the store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from components.contract import ACTIONS, midnight
from components.history.keys import key
from feature_repo.definitions import HISTORY, HISTORY_FEATURES, SNAPSHOT, TAIL
from pinloom.features.store import OnlineStore
from pinloom.settings import Settings
from tests.platform.features import small


def _plain(rows):
    return [row and {k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()} for row in rows]


def test_it_writes_what_feast_materializes(world, tmp_path):
    registry = world.lake.local_path(world.online.file("registry", "registry.db"))
    by_feast = OnlineStore(Settings(home=tmp_path / "twin"), "small_log", registry)
    by_feast.create()
    as_of = midnight(small.LAST)
    by_feast.feast.materialize(as_of - timedelta(days=1), as_of + timedelta(seconds=1))
    features = [*HISTORY_FEATURES, SNAPSHOT]
    ours = world.open().store.read(HISTORY, small.USERS, features)
    assert _plain(ours) == _plain(by_feast.read(HISTORY, small.USERS, features))
    assert sum(row is not None for row in ours) >= len(small.USERS) - 1


GONE, CAME = small.USERS[4], "came since"


def _post(world, user: str, event: str, moment: datetime) -> None:
    row = {"event_id": event, "user_id": user, "item_id": small.ITEM_IDS[0], "action": "like", "timestamp": moment}
    assert world.open().append(pl.DataFrame([row], schema=ACTIONS)) == 1


@pytest.fixture
def erased(published, world):
    """The world after the next snapshot, whose log has nobody called `GONE`; two posted before that."""
    _, spec, _, root = published
    noon = datetime(small.LAST.year, small.LAST.month, small.LAST.day, 12, tzinfo=UTC)
    for user in (GONE, CAME):
        _post(world, user, f"{user} before", noon - timedelta(days=1))
        _post(world, user, f"{user} after", noon)
    elsewhere, _ = small.local(root / "erased")
    small.publish(elsewhere, small.actions().filter(pl.col("user_id") != GONE), spec)
    features = small.run(elsewhere, world.settings, spec, "features", as_of=small.LAST)
    return replace(world, lake=elsewhere).materialize(features=features)


def test_a_user_who_vanished_from_the_log_keeps_only_what_came_after_the_snapshot(erased):
    online = erased.open()
    assert online.history(GONE).event.tolist() == [key(f"{GONE} after")]
    assert online.store.read(HISTORY, [GONE], [SNAPSHOT]) == [None]
    assert len(online.history(small.USERS[5])) > 10


def test_a_user_whom_no_snapshot_knows_yet_keeps_the_tail(erased):
    assert erased.open().history(CAME).event.tolist() == [key(f"{CAME} after"), key(f"{CAME} before")]


def test_nothing_is_left_of_a_vanished_user_once_the_tail_is_older_than_the_snapshot(erased):
    later = small.LAST + timedelta(days=1)
    features = small.run(erased.lake, erased.settings, erased.spec, "features", as_of=later)
    # As it would be if the user had been in the snapshot before this one.
    store = erased.open().store
    row = store.read(TAIL, [GONE], [*HISTORY_FEATURES])[0]
    store.write(HISTORY, {GONE: {**row, SNAPSHOT: 1}}, midnight(small.LAST))
    online = erased.materialize(features=features).open()
    assert online.store.read(TAIL, [GONE, CAME], ["event"])[0] is None
    assert len(online.history(GONE)) == 0
    assert len(online.history(CAME)) == 2


def test_another_data_sets_users_in_the_same_store_stay(world, published, tmp_path):
    """Their project's name ends like this one's."""
    _, _, features, _ = published
    other = replace(world, spec=small.spec(name="not-small-log")).materialize(features=features)
    world.open().store.remove(HISTORY, small.USERS)
    world.materialize(features=features)
    assert len(other.open().history(small.USERS[0])) > 10
    mine = [u for batch in world.open().store.users(HISTORY) for u in batch]
    assert sorted(mine) == sorted(small.USERS[:-1])
