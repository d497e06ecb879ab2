"""Positive pairs of the log by split, some buckets of users or a part of the boards at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.contract import Contract, Role, Ties
from components.graph.pairs import Choices, Pairs, board_pairs, consecutive_pairs
from components.graph.spill import Spill, parts_for
from components.history.keys import hashes, keys
from components.history.log import with_rows
from pinloom.datasets import DatasetSpec
from pinloom.features.buckets import groups_of, read_buckets
from pinloom.graph.edges import read_pieces
from pinloom.lake import Lake, Manifest
from pinloom.lake.manifest import Output

SAVED = np.dtype([("board", np.int64), ("item", np.int32), ("time", np.int64)])
OWNED = np.dtype([("board", np.int64), ("user", np.int32)])

SPLITS = ("train", "validation", "test")
PAIR_COLUMNS = {
    "query": "i32 row of the item table, chosen strictly before the positive",
    "positive": "i32 row of the item table, another one",
    "user_hash": "i32 id_hash of the user, 0 for pairs of a board whose user is not known",
    "timestamp": "i64 µs since epoch, of the positive",
    "weight": "f32; the pairs of one step of a user add up to 1",
}
"""Parquet columns of `pairs`, partition = split."""


def pairs_of_log(
    lake: Lake, table: Manifest, spec: DatasetSpec, item_ids: pl.Series, scratch: Path
) -> Iterator[pl.DataFrame]:
    """Frames of `PAIR_COLUMNS` as the data set declares them, from what happened before the end of the test split.

    Args:
        scratch: a folder for parts of the boards; made here.
    """
    if spec.graph.pairs.source == "boards":
        yield from _of_boards(lake, table, spec, item_ids, scratch)
    else:
        yield from _of_actions(lake, table, spec, item_ids)


def _of_actions(lake: Lake, table: Manifest, spec: DatasetSpec, item_ids: pl.Series) -> Iterator[pl.DataFrame]:
    declared, contract = spec.graph.pairs, spec.contract
    wanted = declared.actions or contract.names(Role.POSITIVE)
    end = contract.splits.interval("test")[1]
    log = table.output("actions")
    for group in groups_of(contract.buckets, log):
        rows = read_buckets(lake, log, group, ["user_id", "item_id", "timestamp"], end, wanted)
        rows = with_rows(rows, item_ids).filter(pl.col("item") > 0)
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


def _of_boards(
    lake: Lake, table: Manifest, spec: DatasetSpec, item_ids: pl.Series, scratch: Path
) -> Iterator[pl.DataFrame]:
    """Undated saves count as of the first day of training."""
    saved = table.outputs.get("boards", Output())
    undated, end = spec.contract.splits.interval("train")[0], spec.contract.splits.interval("test")[1]
    spill = Spill(scratch, SAVED, parts_for(saved.rows))
    for rows in read_pieces(lake, saved, ["board_id", "item_id", "timestamp"]):
        rows = with_rows(rows, item_ids).filter(pl.col("item") > 0).with_columns(pl.col("timestamp").fill_null(undated))
        rows = rows.filter(pl.col("timestamp") < end)
        boards = keys(rows["board_id"])
        columns = {
            "board": boards,
            "item": rows["item"].to_numpy(),
            "time": rows["timestamp"].dt.epoch("us").to_numpy(),
        }
        spill.append(boards % spill.parts, columns)
    owners = _owners(lake, table, spec, Spill(scratch / "owners", OWNED, spill.parts))
    for part in range(spill.parts):
        records = spill.take(part)
        choices = Choices(records["board"], records["item"], records["time"])
        found = board_pairs(choices, window_us=_window(spec), cap=spec.graph.pairs.per_step)
        owner = pl.Series(owner_of(found.user, owners.take(part)))
        yield _frame(found).with_columns(user_hash=owner).select(list(PAIR_COLUMNS))


def _owners(lake: Lake, table: Manifest, spec: DatasetSpec, spill: Spill) -> Spill:
    """`OWNED` records of the boards that are requests or sessions of the log, in the parts of their boards."""
    contract, named = spec.contract, spec.graph.pairs.board_is
    log, end = table.output("actions"), contract.splits.interval("test")[1]
    for group in groups_of(contract.buckets, log) if named else ():
        rows = read_buckets(lake, log, group, ["user_id", f"{named}_id"], end, contract.names(Role.POSITIVE))
        rows = rows.drop_nulls().unique()
        boards = keys(rows[f"{named}_id"])
        spill.append(boards % spill.parts, {"board": boards, "user": hashes(rows["user_id"])})
    return spill


def owner_of(boards: NDArray[np.int64], owned: NDArray[np.void]) -> NDArray[np.int32]:
    """User of each board [n], 0 where `owned` names none or several."""
    distinct = np.unique(owned)
    known, first, count = np.unique(distinct["board"], return_index=True, return_counts=True)
    users = np.append(np.where(count == 1, distinct["user"][first], 0), 0).astype(np.int32)
    place = np.searchsorted(known, boards)
    return np.where(np.append(known, -1)[place] == boards, users[place], 0)


def _window(spec: DatasetSpec) -> int:
    return round(spec.graph.pairs.window_hours * 3600e6)


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
