"""Ranking rows of many requests at once: the vectorised twin of `build.build_example`.

Time is turned into positions: the actions of a user strictly before a request are the positions [first, end) of the
log, so "how often" and "how long ago" are differences of sorted integers and nothing at or after a request is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from components.history import kernels
from components.history.build import NEVER_DAYS
from components.history.items import ItemTable
from components.history.keys import hashes, keys, mix
from components.history.log import Ints, UserLog, newest_first
from components.history.requests import Requests
from components.history.schema import FeatureSchema
from components.history.statistics import DAY, ITEM_NUMERIC, ItemStatistics, log1p_counts

Floats = NDArray[np.float64]


def in_sample(request_ids: pl.Series, share: float) -> pl.Series:
    """Whether each request is kept in a seeded sample, by hash of its id."""
    return pl.Series(mix(keys(request_ids), seed=1) < np.uint64(min(int(share * 2**64), 2**64 - 1)))


def cross_codes(items: ItemTable, schema: FeatureSchema) -> NDArray[np.int32]:
    """The values of the crossed columns as small numbers, 0 = absent. Returns int32 [N, X]."""
    found = np.zeros((len(items), len(schema.crosses)), np.int32)
    for i, name in enumerate(schema.crosses):
        values = items.categorical[:, schema.categorical.index(name)]
        # Absent is 0, the smallest value that there can be; it is there, since row 0 is the unknown item.
        found[:, i] = np.unique(values, return_inverse=True)[1]
    return found


@dataclass(frozen=True)
class _Windows:
    """Requests' windows [first, end) of positions in the log, and the offsets of their candidates."""

    first: Ints
    end: Ints
    offsets: Ints

    @cached_property
    def _order(self) -> Ints:
        return np.lexsort((self.first, self.end))

    def occurrences(
        self, value: NDArray[np.int32], wanted: NDArray[np.int32], size: int
    ) -> tuple[NDArray[np.int32], Ints]:
        """How often, and at which position last (-1 = nowhere), each wanted value occurs. Both [n]."""
        count, newest = np.empty(len(wanted), np.int32), np.full(len(wanted), -1)
        kernels.occurrences(value, self._order, self.first, self.end, self.offsets, wanted, size, count, newest)
        return count, newest


@dataclass(frozen=True)
class ExampleBuilder:
    """Turns requests of one bucket of users into rows of `EXAMPLE_COLUMNS`.

    Attributes:
        identity: `id_hash` of every item id, whether or not it was ever acted on, int32 [N].
        codes: `cross_codes` of the item table, int32 [N, X].
    """

    log: UserLog
    items: ItemTable
    statistics: ItemStatistics
    schema: FeatureSchema
    identity: NDArray[np.int32]
    codes: NDArray[np.int32]

    def build(self, asked: Requests, seed: int = 0) -> pl.DataFrame:
        """One row per request, in a seeded random order; the candidates of each in a seeded random order."""
        requests = _shuffled(asked.requests, seed)
        candidates, offsets = self._candidates(asked, requests, seed)
        owner = np.repeat(np.arange(requests.height), np.diff(offsets))
        user = self.log.index_of(requests["user_id"])
        at = requests["timestamp"].to_numpy(writable=True)
        first, end = self.log.window(user, at, self.schema.max_history)
        rows = candidates["item"].to_numpy(writable=True)
        numeric = self._numeric(rows, at[owner], _Windows(first, end, offsets))
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

    def _candidates(self, asked: Requests, requests: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, Ints]:
        """Candidates in the order of `requests`, each one's by a hash of (request, item); and their offsets."""
        number, owner = requests["request"].to_numpy(), asked.candidates["request"].to_numpy()
        begin, end = np.searchsorted(owner, number), np.searchsorted(owner, number, side="right")
        shuffle = np.zeros(max(int(n.max(initial=0)) for n in (owner, number)) + 1, np.int64)
        shuffle[number] = requests["shuffle"].to_numpy()
        key = mix(self.items.keys[asked.candidates["item"].to_numpy()] ^ shuffle[owner], seed)
        offsets = np.concatenate([[0], np.cumsum(end - begin)])
        order = np.empty(offsets[-1], np.int64)
        kernels.sort_segments(begin, end, key, order)
        return asked.candidates[order], offsets

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

    def _numeric(self, items: NDArray[np.int32], at: Ints, windows: _Windows) -> NDArray[np.float32]:
        statistics = self.statistics.as_of(items, at // DAY)
        numeric = np.empty((len(items), len(self.schema.candidate_numeric)), np.float32)
        numeric[:, : statistics.shape[1]] = statistics
        count, newest = windows.occurrences(self._taken, items, len(self.items))
        columns: list[NDArray[Any]] = [log1p_counts(count), self._recency(newest, at)]
        for codes in self.codes.T:
            # The unknown item has code 0, and so has an item without a value.
            count, _ = windows.occurrences(codes[self._taken], codes[items], int(codes.max()) + 1)
            columns.append(log1p_counts(count))
        for i, column in enumerate(columns, start=statistics.shape[1]):
            numeric[:, i] = column
        return numeric

    @cached_property
    def _taken(self) -> NDArray[np.int32]:
        """Item of each action that counts, 0 for the others, int32 [M]."""
        return np.where(np.isin(self.log.action, self.schema.positive), self.log.item, np.int32(0))

    def _recency(self, newest: Ints, at: Ints) -> Floats:
        """log1p of days since the newest occurrence in each window."""
        days = np.full(len(at), NEVER_DAYS)
        some = newest >= 0
        days[some] = (at[some] - self.log.timestamp[newest[some]]) / DAY
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
