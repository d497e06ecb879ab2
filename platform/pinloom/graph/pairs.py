"""Positive pairs of the log, by split, a bucket of users at a time."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from components.contract import Contract, Role, Ties
from components.graph.pairs import Choices, Pairs, consecutive_pairs
from components.history.keys import hashes, keys
from components.history.log import with_rows
from pinloom.datasets import DatasetSpec
from pinloom.features.buckets import read_bucket
from pinloom.lake import Lake, Manifest

SPLITS = ("train", "validation", "test")
PAIR_COLUMNS = {
    "query": "i32 row of the item table, chosen strictly before the positive",
    "positive": "i32 row of the item table, another one",
    "user_hash": "i32 id_hash of the user",
    "timestamp": "i64 µs since epoch, of the positive",
    "weight": "f32; the pairs of one step of a user add up to 1",
}
"""Parquet columns of `pairs`, partition = split."""


def pairs_of_log(lake: Lake, table: Manifest, spec: DatasetSpec, item_ids: pl.Series) -> Iterator[pl.DataFrame]:
    """Frames of `PAIR_COLUMNS`, one per bucket of users, from positive actions before the end of the test split."""
    declared, contract = spec.graph.pairs, spec.contract
    wanted = declared.actions or contract.names(Role.POSITIVE)
    end = contract.splits.interval("test")[1]
    for bucket in range(contract.buckets):
        columns = ["user_id", "item_id", "action", "timestamp"]
        rows = read_bucket(lake, table.output("actions"), bucket, columns, end)
        rows = with_rows(rows.filter(pl.col("action").is_in(wanted)), item_ids).filter(pl.col("item") > 0)
        rows = rows.sort("user_id", "timestamp", maintain_order=True)
        users = rows["user_id"].unique()
        numbers = pl.DataFrame({"user_id": users, "key": keys(users), "user_hash": hashes(users)})
        rows = rows.join(numbers, on="user_id", maintain_order="left")
        found = consecutive_pairs(
            Choices(rows["key"].to_numpy(), rows["item"].to_numpy(), rows["timestamp"].dt.epoch("us").to_numpy()),
            ordered=contract.ties is Ties.ORDERED,
            window_us=round(declared.window_hours * 3600e6),
            cap=declared.per_step,
        )
        yield (
            _frame(found)
            .join(numbers, left_on="user", right_on="key", maintain_order="left")
            .select(list(PAIR_COLUMNS))
        )


def _frame(found: Pairs) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "query": found.query,
            "positive": found.positive,
            "user": found.user,
            "timestamp": found.timestamp,
            "weight": found.weight,
        }
    )


def by_split(pairs: pl.DataFrame, contract: Contract) -> Iterator[tuple[str, pl.DataFrame]]:
    """The pairs of each split, by the time of the positive."""
    stamps = pairs["timestamp"].to_numpy()
    for split in SPLITS:
        start, stop = (round(moment.timestamp() * 1e6) for moment in contract.splits.interval(split))
        yield split, pairs.filter(pl.Series((stamps >= start) & (stamps < stop), dtype=pl.Boolean))
