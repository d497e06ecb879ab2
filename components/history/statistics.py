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

Ints = NDArray[np.int64]


def daily_counts(positives: pl.DataFrame) -> pl.DataFrame:
    """Counts of one bucket of users; counts of several buckets add up, since a user is in one.

    Args:
        positives: `user` (any key), `item` (row), `timestamp` (µs), one row per positive action.

    Returns:
        `item`, `day` (since epoch), `positives`, `newcomers` (users whose first positive with the item it was).
    """
    days = positives.select("user", "item", day=pl.col("timestamp") // DAY)
    per_day = days.group_by("item", "day").agg(positives=pl.len())
    first = days.group_by("user", "item").agg(pl.col("day").min())
    newcomers = first.group_by("item", "day").agg(newcomers=pl.len())
    return per_day.join(newcomers, on=["item", "day"], how="left").with_columns(pl.col("newcomers").fill_null(0))


def add_up(parts: Iterable[pl.DataFrame], rows: int = 1_000_000) -> pl.DataFrame:
    """One row per (item, day) from the counts of many buckets, in memory of about two totals, however many they are."""
    total: pl.DataFrame | None = None
    pending: list[pl.DataFrame] = []
    for part in parts:
        pending.append(part)
        if sum(p.height for p in pending) > max(rows, total.height if total is not None else 0):
            total, pending = _sum([total, *pending] if total is not None else pending), []
    return _sum([total, *pending] if total is not None else pending)


def _sum(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).group_by("item", "day").agg(pl.col("positives", "newcomers").sum())


@dataclass(frozen=True)
class ItemStatistics:
    """Running totals of each item by day.

    Attributes:
        first_day: day (since epoch) that offset 0 of the keys means; `days` offsets exist.
        keys: sorted item row * days + day offset of each (item, day) with a positive action, int64 [K].
        positives, users: totals of all keys up to and including each, int64 [K + 1], starting with 0.
        created: first moment of each item, µs since epoch, int64 [N]; -1 = unknown.
    """

    first_day: int
    days: int
    keys: Ints
    positives: Ints
    users: Ints
    created: Ints

    @classmethod
    def from_daily(cls, daily: pl.DataFrame, created: Ints) -> ItemStatistics:
        """From the counts of all buckets, one row per (item, day)."""
        total = daily.sort("item", "day")
        day = total["day"].to_numpy().astype(np.int64)
        first, last = (int(day.min()), int(day.max())) if len(day) else (0, 0)
        days = last - first + 2
        keys = total["item"].to_numpy().astype(np.int64) * days + day - first
        return cls(first, days, keys, _running(total["positives"]), _running(total["newcomers"]), created)

    def _position(self, items: Ints, day: Ints) -> Ints:
        """Number of keys before (item, day)."""
        return np.searchsorted(self.keys, items * self.days + np.clip(day - self.first_day, 0, self.days - 1))

    def as_of(self, items: NDArray[np.integer], day: NDArray[np.integer]) -> NDArray[np.float32]:
        """Statistics of items from everything before the midnight that starts `day`.

        Args:
            items: rows of the item table, [n].
            day: days since epoch, [n].

        Returns:
            float32 [n, 5] in the order of `ITEM_NUMERIC`.
        """
        rows, at = items.astype(np.int64), day.astype(np.int64)
        # Searching in sorted order is several times faster than jumping about in the keys.
        order = np.argsort(rows * self.days + np.clip(at - self.first_day, 0, self.days - 1))
        found = np.empty((len(rows), len(ITEM_NUMERIC)), np.float32)
        found[order] = self._sorted_as_of(rows[order], at[order])
        return found

    def _sorted_as_of(self, rows: Ints, at: Ints) -> NDArray[np.float32]:
        end, start = self._position(rows, at), self._position(rows, np.full_like(at, self.first_day))
        positives = [
            self.positives[end] - self.positives[self._position(rows, at - 7)],
            self.positives[end] - self.positives[self._position(rows, at - 28)],
            self.positives[end] - self.positives[start],
        ]
        users = self.users[end] - self.users[start]
        created = self.created[rows]
        age = np.where(created < 0, 0, np.maximum(at * DAY - created, 0)) / DAY
        return np.log1p(np.stack([*positives, users, age], axis=1)).astype(np.float32)


def _running(counts: pl.Series) -> Ints:
    return np.concatenate([[0], np.cumsum(counts.to_numpy(), dtype=np.int64)])
