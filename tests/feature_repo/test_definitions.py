"""Feast's definitions against the files and the item table that they describe."""

from datetime import timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from components.contract import midnight
from components.history.build import USER_NUMERIC, build_example
from components.history.items import ItemTable
from components.history.merge import COLUMNS
from components.history.statistics import ITEM_NUMERIC
from feature_repo.definitions import (
    HISTORY_FEATURES,
    ITEM_FEATURES,
    TAIL,
    USER_FEATURES,
    USER_STATS,
    Sources,
    define,
)
from pinloom.features.online import OnlineFeatures
from pinloom.features.store import OnlineStore
from pinloom.steps.features import SERVICE
from tests.platform.features import small


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    lake, settings = small.local(tmp_path_factory.mktemp("definitions"))
    spec = small.spec()
    small.publish(lake, small.actions(), spec)
    features = small.run(lake, settings, spec, "features")
    online = small.run(lake, settings, spec, "materialize")
    store = OnlineStore(settings, "small_log", lake.local_path(online.file("registry", "registry.db")))
    return lake, features, online, store, settings


def test_names_are_those_of_the_code_that_reads_and_writes():
    defined = define(Sources("a", "b", "c", "d"))
    assert SERVICE in {s.name for s in defined.services}
    assert list(HISTORY_FEATURES) == list(COLUMNS)
    assert tuple(ITEM_FEATURES) == ITEM_NUMERIC
    assert set(USER_NUMERIC) < set(USER_FEATURES)


def test_the_service_gives_offline_what_the_snapshot_and_the_histories_hold(world):
    lake, features, online, store, _ = world
    as_of = midnight(small.LAST + timedelta(days=1))
    asked = pd.DataFrame(
        {
            "user_id": [small.USERS[0], small.USERS[1]],
            "item_id": [small.ITEM_IDS[5], small.ITEM_IDS[0]],
            "event_timestamp": [as_of, as_of],
        }
    )
    service = store.feast.get_feature_service(SERVICE)
    got = store.feast.get_historical_features(entity_df=asked, features=service, full_feature_names=True)
    frame = got.to_df().sort_values("user_id")
    items = ItemTable.load({u.rsplit("/", 1)[-1]: lake.local_path(u) for u in online.output("snapshot").uris})
    rows = items.rows(frame["item_id"].tolist())
    numeric = frame[[f"item_stats__{name}" for name in ITEM_NUMERIC]].to_numpy(np.float32)
    np.testing.assert_array_equal(numeric, items.numeric[rows])
    vectors = np.stack(frame["item_content__vector"].tolist()).astype(np.float16)
    np.testing.assert_array_equal(vectors, items.vectors[rows])
    histories = small.read(lake, features, "histories").filter(pl.col("user_id").is_in(small.USERS[:2]))
    for name in COLUMNS:
        wanted = histories.sort("user_id")[name].to_list()
        assert [list(v) for v in frame[f"user_history__{name}"]] == wanted
    assert frame[f"{TAIL}__event"].isna().all()


def test_a_users_numbers_are_offline_what_serving_makes_of_the_online_history(world):
    """So the online store needs no copy of them, which would be as old as the snapshot."""
    _, _, online, store, settings = world
    as_of = midnight(small.LAST + timedelta(days=1))
    asked = pd.DataFrame({"user_id": small.USERS[:4], "event_timestamp": [as_of] * 4})
    names = [f"{USER_STATS}:{name}" for name in USER_NUMERIC]
    got = store.feast.get_historical_features(entity_df=asked, features=names).to_df().set_index("user_id")
    served = OnlineFeatures(settings, online)
    at = int(as_of.timestamp() * 1e6)
    for user in small.USERS[:4]:
        candidates = np.ones(1, np.int32)
        example = build_example(served.history(user), candidates, at, served.items, served.schema, user_id=user)
        np.testing.assert_allclose(example.user_numeric, got.loc[user, list(USER_NUMERIC)].astype(float), atol=1e-6)
    assert USER_STATS not in {v.name for v in store.feast.list_feature_views() if v.online}


def test_nothing_is_known_before_the_snapshot(world):
    store = world[3]
    asked = pd.DataFrame({"user_id": [small.USERS[0]], "event_timestamp": [midnight(small.LAST)]})
    got = store.feast.get_historical_features(entity_df=asked, features=["user_stats:actions"]).to_df()
    assert got["actions"].isna().all()
