"""The same request scored offline, from training rows, and online, through HTTP, gets the same scores."""

import numpy as np
import polars as pl
import pytest

from components.contract import midnight
from components.history.items import ItemTable
from components.models.ranker.data import collate
from tests.platform.serving import planted
from tests.platform.serving.asking import post, rank


@pytest.fixture(scope="module")
def offline(world) -> tuple[pl.DataFrame, ItemTable]:
    """Rows of the log's last day, whose item statistics are those of the served snapshot's midnight."""
    files = world.lake.local_paths(world.complete.output("examples"))
    rows = pl.concat([pl.read_parquet(f) for f in files if "test-" in f])
    items = ItemTable.load({f.rsplit("/", 1)[-1]: f for f in world.lake.local_paths(world.complete.output("items"))})
    return rows.filter(pl.col("timestamp") >= midnight(planted.LAST)), items


def offline_scores(service, rows: pl.DataFrame, items: ItemTable) -> np.ndarray:
    loaded = service.loaded
    batch = collate(rows.to_arrow(), items, loaded.schema, sequence_length=loaded.schema.sequence_length)
    probability, final = loaded.artifact.score(batch)
    return np.column_stack([probability.numpy(), final.numpy()])


def online_scores(client, service, row, items: ItemTable) -> np.ndarray:
    """Scores by HTTP of one offline row's request, in the row's order."""
    ids = [items.ids[i] for i in row["candidate_item"]]
    at = row["timestamp"].isoformat()
    found = rank(client, row["user_id"], [{"item_id": i, "surface": "shelf"} for i in ids], at=at)["ranked"]
    by_index = sorted(found, key=lambda r: r["index"])
    return np.array([[*(r["heads"][h] for h in service.schema.heads), r["score"]] for r in by_index])


def test_offline_and_online_scores_agree(client, service, offline):
    rows, items = offline
    morning = rows.filter(pl.col("timestamp").dt.hour() == 9)
    assert morning.height == len(planted.USERS)
    online = np.concatenate([online_scores(client, service, r, items) for r in morning.iter_rows(named=True)])
    np.testing.assert_allclose(online, offline_scores(service, morning, items), atol=1e-5, rtol=0)


def test_offline_and_online_agree_when_the_day_s_actions_came_by_http(client, service, offline):
    rows, items = offline
    afternoon = rows.filter(pl.col("timestamp").dt.hour() == 15)
    stale = np.concatenate([online_scores(client, service, r, items) for r in afternoon.iter_rows(named=True)])
    today = planted.actions().filter(pl.col("timestamp") >= midnight(planted.LAST))
    columns = ["event_id", "user_id", "item_id", "action", "timestamp", "surface", "request_id"]
    for part in today.select(columns).iter_slices(500):
        post(client, *({**r, "timestamp": r["timestamp"].isoformat()} for r in part.iter_rows(named=True)))
    online = np.concatenate([online_scores(client, service, r, items) for r in afternoon.iter_rows(named=True)])
    expected = offline_scores(service, afternoon, items)
    np.testing.assert_allclose(online, expected, atol=1e-5, rtol=0)
    assert np.abs(stale - expected).max() > 1e-3
