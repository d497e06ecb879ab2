"""The bucket-wise fill against Feast's own materialization."""

from datetime import timedelta

from components.contract import midnight
from feature_repo.definitions import HISTORY, HISTORY_FEATURES, SNAPSHOT, USER_FEATURES, USER_STATS
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
    for view, features in ((HISTORY, [*HISTORY_FEATURES, SNAPSHOT]), (USER_STATS, list(USER_FEATURES))):
        ours = world.open().store.read(view, small.USERS, features)
        assert _plain(ours) == _plain(by_feast.read(view, small.USERS, features))
        assert sum(row is not None for row in ours) >= len(small.USERS) - 1
