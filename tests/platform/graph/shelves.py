"""The small log of the features' tests with boards: 25 shelves that fill up over the days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from components.contract import BOARDS
from pinloom.datasets import DatasetSpec
from pinloom.datasets.graph import GraphSpec
from pinloom.lake import Lake, Manifest
from tests.platform.features import small


def spec(graph: dict[str, Any] | None = None, **contract: Any) -> DatasetSpec:
    return small.spec(**contract).model_copy(update={"graph": GraphSpec.model_validate(graph or {})})


def boards(rows: int = 400, seed: int = 0) -> pl.DataFrame:
    """One save in ten is of an item that nobody knows, one in fifty has no time."""
    rng = np.random.default_rng(seed)
    start = datetime(small.START.year, small.START.month, small.START.day, tzinfo=UTC)
    items = [*small.ITEM_IDS, *[f"gone-{i}" for i in range(4)]]
    minutes = rng.integers(0, small.DAYS * 1440, rows)
    stamps = [None if rng.random() < 0.02 else start + timedelta(minutes=int(m)) for m in minutes]
    return pl.DataFrame(
        {
            "board_id": [f"shelf {b}" for b in rng.integers(0, 25, rows)],
            "item_id": [items[i] for i in rng.integers(0, len(items), rows)],
            "timestamp": stamps,
        },
        schema=BOARDS,
    )


def publish(lake: Lake, of: DatasetSpec, saved: pl.DataFrame | None) -> Manifest:
    """Point `actions` at the small log, with `saved` as its boards by day."""
    table = small.publish(lake, small.actions(), of)
    if saved is None:
        return table
    writer = lake.writer("table", f"boards-{saved.hash_rows(seed=0).sum()}", "boards", "0")
    for (day,), rows in saved.group_by(pl.col("timestamp").dt.date(), maintain_order=True):
        writer.parquet(f"{day}.parquet", rows, partition=str(day))
    outputs = {**table.outputs, "boards": writer.output()}
    with_boards = table.model_copy(update={"outputs": outputs})
    published = lake.publish(with_boards.model_copy(update={"key": with_boards.content_hash(), "uri": ""}))
    return lake.advance("actions", lambda _: published)
