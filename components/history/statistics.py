"""Item statistics as of any midnight, from daily counts: the offline side and the snapshot read the same code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

DAY = 86_400_000_000
"""Microseconds in a day."""

ITEM_NUMERIC = ("log_positives_7d", "log_positives_28d", "log_positives", "log_users", "log_age_days")
"""Columns of `ItemStatistics.as_of`: log1p of counts, and log1p(1 + days since the item's first moment), 0 = unknown.

An item whose first moment is not before the midnight is 0 days old: its future is not known yet.
"""

Ints = NDArray[np.int64]


def daily_counts(positives: pl.DataFrame) -> pl.DataFrame:
    """Counts of one bucket of users; counts of several buckets add up, since a user is in one.

    Args:
        positives: `user` (number ≥ 0), `item` (row), `timestamp` (µs), one row per positive action.

    Returns:
        `item`, `day` (since epoch), `positives`, `newcomers` (users whose first positive with the item it was).
    """
    user, item, time = (positives[c].to_numpy().astype(np.int64) for c in ("user", "item", "timestamp"))
    items, day = int(item.max(initial=0)) + 1, time // DAY
    begin = int(day.min(initial=0))
    days = int(day.max(initial=0)) - begin + 1
    # (user, item, day) as one number, sorted: the first of each (user, item) is a newcomer's.
    visit = np.sort((user * items + item) * days + day - begin)
    entry = visit // days % items * days + visit % days
    newcomer = entry[np.diff(visit // days, prepend=-1) != 0]
    entries, count = np.unique(entry, return_counts=True)
    newcomers = np.bincount(np.searchsorted(entries, newcomer), minlength=len(entries))
    return _counts(entries // days, entries % days + begin, count, newcomers)


def _counts(item: Ints, day: Ints, positives: Ints, newcomers: Ints) -> pl.DataFrame:
    schema = {"item": pl.Int32, "day": pl.Int32, "positives": pl.UInt32, "newcomers": pl.UInt32}
    columns = (item, day, positives, newcomers)
    return pl.DataFrame(dict(zip(schema, columns, strict=True))).cast(schema)  # type: ignore[arg-type]


def add_up(parts: Iterable[pl.DataFrame], rows: int = 200_000) -> pl.DataFrame:
    """One row per (item, day) from the counts of many buckets, in memory of about two totals, however many they are."""
    total: pl.DataFrame | None = None
    pending: list[pl.DataFrame] = []
    for part in parts:
        pending.append(part)
        if sum(p.height for p in pending) > max(rows, total.height if total is not None else 0):
            total, pending = _sum([total, *pending] if total is not None else pending), []
    return _sum([total, *pending] if total is not None else pending)


def _sum(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Sorted by sorting: parts are runs, which a stable sort merges; a group-by would hold several times as much."""
    joined = pl.concat(parts)
    key = joined["item"].to_numpy().astype(np.int64) * 2**32 + joined["day"].to_numpy()
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-(2**63)) != 0)
    positives, newcomers = (
        np.add.reduceat(joined[c].to_numpy()[order], starts) if len(starts) else joined[c].to_numpy()
        for c in ("positives", "newcomers")
    )
    first = joined[order[starts]]
    return _counts(first["item"].to_numpy(), first["day"].to_numpy(), positives, newcomers)


@dataclass(frozen=True)
class ItemStatistics:
    """Running totals of each item by day.

    Attributes:
        start: of each item's days, int64 [N + 1].
        day: days since epoch with a positive action, item after item, ascending, int64 [K].
        positives, users: totals of all entries up to and including each, int64 [K + 1], starting with 0.
        created: first moment of each item, µs since epoch, int64 [N]; -1 = unknown.
    """

    start: Ints
    day: Ints
    positives: Ints
    users: Ints
    created: Ints

    @classmethod
    def from_daily(cls, daily: pl.DataFrame, created: Ints) -> ItemStatistics:
        """From the counts of all buckets, one row per (item, day)."""
        total = daily.sort("item", "day")
        start = np.searchsorted(total["item"].to_numpy(), np.arange(len(created) + 1))
        day = total["day"].to_numpy().astype(np.int64)
        return cls(start, day, _running(total["positives"]), _running(total["newcomers"]), created)

    def as_of(self, items: NDArray[np.integer], day: NDArray[np.integer]) -> NDArray[np.float32]:
        """Statistics of items from everything before the midnight that starts `day`.

        Args:
            items: rows of the item table, [n].
            day: days since epoch, [n].

        Returns:
            float32 [n, 5] in the order of `ITEM_NUMERIC`.
        """
        from components.history import kernels  # numba, which readers of the snapshot's statistics do not need

        rows, at = items.astype(np.int64), day.astype(np.int64)
        counts = np.empty((len(rows), 4), np.int64)
        kernels.totals_before(self.start, self.day, self.positives, self.users, rows, at, 7, 28, counts)
        created = self.created[rows]
        age = np.maximum(at * DAY - created, 0) / DAY
        found = np.empty((len(rows), len(ITEM_NUMERIC)), np.float32)
        found[:, :4] = log1p_counts(counts)
        found[:, 4] = np.where(created < 0, 0, np.log1p(1 + age))
        return found


def log1p_counts(counts: NDArray[np.integer]) -> NDArray[np.float32]:
    """log1p of whole numbers ≥ 0, each computed once. Any shape."""
    return np.log1p(np.arange(int(counts.max(initial=0)) + 1)).astype(np.float32)[counts]


def _running(counts: pl.Series) -> Ints:
    return np.concatenate([[0], np.cumsum(counts.to_numpy(), dtype=np.int64)])
