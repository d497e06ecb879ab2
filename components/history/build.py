"""One request's ranking features from one user's history: what serving runs, and the slow twin of `examples`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.history.items import ItemTable
from components.history.schema import FeatureSchema, id_hash
from components.history.statistics import DAY

NEVER_DAYS = 3650.0
"""What a recency says when there was no such action."""

USER_NUMERIC = ("log_actions", "log_actions_7d", "log_actions_28d", "log_days_since_last")

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class History:
    """A user's actions, newest first; equal times by event key, so that their order is no information.

    Attributes:
        item: rows of the item table, int32 [H], 0 = unknown item.
        action: action indices, int16 [H].
        timestamp: µs since epoch, int64 [H], not increasing.
        surface: `id_hash` of the surface, int32 [H].
        event: `keys.key` of the event id, int64 [H].
    """

    item: Ints
    action: NDArray[np.int16]
    timestamp: NDArray[np.int64]
    surface: Ints
    event: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.item)

    def before(self, at: int, limit: int) -> History:
        """The newest `limit` actions strictly before `at` (µs since epoch)."""
        first = int(np.searchsorted(-self.timestamp, -at, side="right"))
        cut = slice(first, first + limit)
        return History(self.item[cut], self.action[cut], self.timestamp[cut], self.surface[cut], self.event[cut])

    @classmethod
    def empty(cls) -> History:
        types = (np.int32, np.int16, np.int64, np.int32, np.int64)
        return cls(*(np.zeros(0, t) for t in types))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Example:
    """One request as `EXAMPLE_COLUMNS` says; n candidates, L ≤ sequence_length actions."""

    history_item: Ints
    history_action: NDArray[np.int16]
    history_timestamp: NDArray[np.int64]
    history_surface: Ints
    candidate_item: Ints
    candidate_hash: Ints
    candidate_surface: Ints
    candidate_numeric: Floats
    user_hash: int
    user_numeric: Floats

    def columns(self) -> dict[str, Any]:
        """By column name, `candidate_numeric` flat as it is stored."""
        return {**vars(self), "candidate_numeric": self.candidate_numeric.ravel()}


def build_example(
    history: History,
    candidates: Ints,
    at: int,
    items: ItemTable,
    schema: FeatureSchema,
    *,
    user_id: str,
    surface: Ints | None = None,
    numeric: Floats | None = None,
) -> Example:
    """Features of `candidates` for a user at a moment.

    Args:
        candidates: rows of the item table, int32 [n].
        at: moment of the request, µs since epoch; only actions strictly before it are seen.
        surface: `id_hash` of each candidate's surface, int32 [n]; default none.
        numeric: item statistics float32 [n, F]; default those of the item table (its snapshot's midnight).
    """
    past = history.before(at, schema.max_history)
    recent = past.before(at, schema.sequence_length)
    known = np.isin(past.action, schema.positive) & (past.item != 0)
    taken, when = past.item[known], past.timestamp[known]
    statistics = items.numeric[candidates] if numeric is None else numeric
    columns = [_counts(taken, candidates), _recency(taken, when, candidates, at)]
    for name in schema.crosses:
        values = items.categorical[:, schema.categorical.index(name)]
        columns.append(_counts(values[taken], values[candidates]))
    return Example(
        history_item=recent.item,
        history_action=recent.action,
        history_timestamp=recent.timestamp,
        history_surface=recent.surface,
        candidate_item=candidates,
        candidate_hash=items.hash[candidates],
        candidate_surface=np.zeros_like(candidates) if surface is None else surface,
        candidate_numeric=np.column_stack([statistics, *columns]).astype(np.float32),
        user_hash=id_hash(user_id) if len(past) else 0,
        user_numeric=_user_numeric(past.timestamp, at),
    )


def _counts(seen: Ints, wanted: Ints) -> NDArray[np.float64]:
    """log1p of how often each of `wanted` occurs in `seen`; 0 stands for nothing and occurs never."""
    values, counts = np.unique(seen, return_counts=True)
    return np.log1p(_look_up(values, counts, wanted, 0))


def _recency(seen: Ints, when: NDArray[np.int64], wanted: Ints, at: int) -> NDArray[np.float64]:
    """log1p of days since the newest occurrence. `seen` is newest first, so the first index is the newest."""
    values, newest = np.unique(seen, return_index=True)
    return np.log1p(_look_up(values, (at - when[newest]) / DAY, wanted, NEVER_DAYS))


def _look_up(values: Ints, results: NDArray[Any], wanted: Ints, default: float) -> NDArray[np.float64]:
    if not len(values):
        return np.full(len(wanted), default, np.float64)
    at = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where((values[at] == wanted) & (wanted != 0), results[at], default).astype(np.float64)


def _user_numeric(times: NDArray[np.int64], at: int) -> Floats:
    within = [float(np.count_nonzero(times >= at - days * DAY)) for days in (7, 28)]
    last = (at - int(times[0])) / DAY if len(times) else NEVER_DAYS
    return np.log1p(np.array([len(times), *within, last])).astype(np.float32)
