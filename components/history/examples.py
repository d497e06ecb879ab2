"""Ranking rows of many requests at once: the vectorised twin of `build.build_example`.

Time is turned into positions: the actions of a user strictly before a request are the positions [first, end) of the
log, so "how often" and "how long ago" are differences of sorted integers and nothing at or after a request is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from components.history.build import NEVER_DAYS
from components.history.items import ItemTable
from components.history.keys import hashes, keys, mix
from components.history.log import Ints, UserLog, newest_first
from components.history.requests import Requests
from components.history.schema import FeatureSchema
from components.history.statistics import DAY, ITEM_NUMERIC, ItemStatistics

Floats = NDArray[np.float64]


def in_sample(request_ids: pl.Series, share: float) -> pl.Series:
    """Whether each request is kept in a seeded sample, by hash of its id."""
    return pl.Series(mix(keys(request_ids), seed=1) < np.uint64(min(int(share * 2**64), 2**64 - 1)))


@dataclass(frozen=True)
class _Index:
    """Positions of positive actions by a value (item row or category), for counting in windows of positions."""

    keys: Ints
    position: Ints
    size: int

    @classmethod
    def of(cls, values: NDArray[np.int32], position: Ints, size: int) -> _Index:
        """`values` at `position` (increasing) of a log of `size` actions; value 0 is left out."""
        real = values != 0
        keyed = values[real].astype(np.int64) * (size + 1) + position[real]
        order = np.argsort(keyed, kind="stable")
        return cls(keyed[order], position[real][order], size)

    def window(self, values: NDArray[np.int32], first: Ints, end: Ints) -> tuple[Ints, Ints]:
        """Range of occurrences of each value among positions [first, end)."""
        order = np.argsort(values)
        base = values[order].astype(np.int64) * (self.size + 1)
        low, high = np.empty_like(first), np.empty_like(end)
        # Values in order: neighbouring searches end near each other.
        low[order] = np.searchsorted(self.keys, base + first[order])
        high[order] = np.searchsorted(self.keys, base + end[order])
        return low, high


@dataclass(frozen=True)
class ExampleBuilder:
    """Turns requests of one bucket of users into rows of `EXAMPLE_COLUMNS`.

    Attributes:
        identity: `id_hash` of every item id, whether or not it was ever acted on, int32 [N].
    """

    log: UserLog
    items: ItemTable
    statistics: ItemStatistics
    schema: FeatureSchema
    identity: NDArray[np.int32]

    def build(self, asked: Requests, seed: int = 0) -> pl.DataFrame:
        """One row per request, in a seeded random order; the candidates of each in a seeded random order."""
        requests = _shuffled(asked.requests, seed)
        candidates = self._candidates(asked, requests, seed)
        owner = candidates["request"].to_numpy().astype(np.int64)
        offsets = np.searchsorted(owner, np.arange(requests.height + 1))
        user = self.log.index_of(requests["user_id"])
        at = requests["timestamp"].to_numpy()
        first, end = self.log.window(user, at, self.schema.max_history)
        rows = candidates["item"].to_numpy()
        numeric = self._numeric(rows, at[owner], first[owner], end[owner])
        warm = numeric[:, ITEM_NUMERIC.index("log_positives")] > 0
        user_numeric = self.log.user_numeric(user, at, first, end)
        columns = {
            **self._history(first, end),
            "candidate_item": lists(rows, offsets),
            "candidate_hash": lists(np.where(warm, self.identity[rows], 0).astype(np.int32), offsets),
            "candidate_surface": lists(hashes(candidates["surface"]), offsets),
            "candidate_numeric": lists(numeric.ravel(), offsets * numeric.shape[1]),
            "candidate_sampling": lists(candidates["sampling"].cast(pl.Float32).to_numpy(), offsets),
            "labels": lists(candidates["labels"].to_numpy(), offsets),
            "user_hash": pl.Series(np.where(end > first, hashes(requests["user_id"]), 0).astype(np.int32)),
            "user_numeric": lists(user_numeric.ravel(), np.arange(len(user) + 1) * user_numeric.shape[1]),
        }
        moment = pl.col("timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return requests.select("request_id", "user_id", moment).with_columns(**columns)

    def _candidates(self, asked: Requests, requests: pl.DataFrame, seed: int) -> pl.DataFrame:
        """Candidates with the index of their request, sorted by it, then by a hash of (request, item)."""
        places = requests.select("shuffle", number="request").with_row_index("request")
        joined = asked.candidates.rename({"request": "number"}).join(places, on="number")
        item_key = self.items.keys[joined["item"].to_numpy()]
        order = mix(item_key ^ joined["shuffle"].to_numpy(), seed)
        return joined.with_columns(order=order).sort("request", "order")

    def _history(self, first: Ints, end: Ints) -> dict[str, pl.Series]:
        at, offsets = newest_first(np.maximum(first, end - self.schema.sequence_length), end)
        log = self.log
        arrays: dict[str, NDArray[Any]] = {
            "item": log.item,
            "action": log.action,
            "timestamp": log.timestamp,
            "surface": log.surface,
        }
        return {f"history_{name}": lists(values[at], offsets) for name, values in arrays.items()}

    def _numeric(self, items: NDArray[np.int32], at: Ints, first: Ints, end: Ints) -> NDArray[np.float32]:
        counted = np.flatnonzero(np.isin(self.log.action, self.schema.positive))
        taken = self.log.item[counted]
        index = _Index.of(taken, counted, len(self.log))
        low, high = index.window(items, first, end)
        columns = [np.log1p(high - low), self._recency(index, low, high, at)]
        for name in self.schema.crosses:
            values = np.asarray(self.items.categorical[:, self.schema.categorical.index(name)])
            # A candidate without a value has code 0, which the index leaves out.
            low, high = _Index.of(values[taken] * (taken != 0), counted, len(self.log)).window(
                values[items], first, end
            )
            columns.append(np.log1p(high - low))
        return np.column_stack([self.statistics.as_of(items, at // DAY), *columns]).astype(np.float32)

    def _recency(self, index: _Index, low: Ints, high: Ints, at: Ints) -> Floats:
        """log1p of days since the newest occurrence in each window."""
        days = np.full(len(at), NEVER_DAYS)
        some = high > low
        days[some] = (at[some] - self.log.timestamp[index.position[high[some] - 1]]) / DAY
        return np.log1p(days)


def _shuffled(requests: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Requests in the order of a hash of their identity, which stays as `shuffle`."""
    identity = keys(requests["request_id"]) ^ (keys(requests["user_id"]) << 1)
    return requests.with_columns(shuffle=identity, order=mix(identity, seed)).sort("order").drop("order")


def lists(values: NDArray[Any], offsets: Ints) -> pl.Series:
    """One list per window [offsets[i], offsets[i+1]) of `values`, without copying them."""
    listed = pa.LargeListArray.from_arrays(pa.array(offsets.astype(np.int64)), pa.array(values))
    series = pl.from_arrow(listed)
    assert isinstance(series, pl.Series)
    return series
