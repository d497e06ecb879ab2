"""A user's past from two records: the materialized snapshot and the realtime tail, merged by event."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
"""Parallel arrays of a history, newest first: `item_key`, `action`, `timestamp`, `surface`, `event`."""

COLUMNS: dict[str, type[np.generic]] = {
    "item_key": np.int64,
    "action": np.int32,
    "timestamp": np.int64,
    "surface": np.int32,
    "event": np.int64,
}


def empty() -> Columns:
    return {name: np.zeros(0, dtype) for name, dtype in COLUMNS.items()}


def merge(older: Columns, newer: Columns, *, ordered_ties: bool, limit: int) -> Columns:
    """All events of both, once each, newest first, at most `limit`.

    An event in both is taken from `older`. Equal times: by event key, or with `ordered_ties` the events of `newer`
    are later and each record keeps its own order.
    """
    fresh = ~np.isin(newer["event"], older["event"])
    if not fresh.any():
        return {name: values[:limit] for name, values in older.items()}
    joined = {name: np.concatenate([newer[name][fresh], older[name]]) for name in older}
    # Stable on the reversed (oldest first) arrays, then reversed again: later in the record is newer.
    if ordered_ties:
        oldest_first = np.argsort(joined["timestamp"][::-1], kind="stable")
        order = len(oldest_first) - 1 - oldest_first[::-1]
    else:
        order = np.lexsort((joined["event"], joined["timestamp"]))[::-1]
    return {name: values[order[:limit]] for name, values in joined.items()}


def without(columns: Columns, events: NDArray[np.int64]) -> Columns:
    """`columns` less the given events."""
    kept = ~np.isin(columns["event"], events)
    return {name: values[kept] for name, values in columns.items()}
