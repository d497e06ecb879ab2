"""Where candidates come from. Every retriever answers one question, so that learned ones can join later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.history.build import History
from components.history.items import ItemTable
from components.history.schema import FeatureSchema

Rows = NDArray[np.int32]
Floats = NDArray[np.float32]

CHUNK = 65_536
"""Vectors turned to float32 at a time: 8 MB, whatever the number of items."""


@dataclass(frozen=True)
class UserState:
    """What retrieval and ranking know of a user at a moment.

    Attributes:
        history: actions strictly before `at`, newest first.
        at: µs since epoch.
    """

    user_id: str
    history: History
    at: int


class Retriever(Protocol):
    name: str

    def candidates(self, user: UserState, k: int) -> Rows:
        """At most `k` distinct rows of the item table, best first, never row 0. Returns int32 [≤ k]."""
        ...


class Popularity:
    """Items by positive actions of the last four weeks before the snapshot, then by all of them."""

    name = "popularity"

    def __init__(self, items: ItemTable, schema: FeatureSchema) -> None:
        recent, total = (items.numeric[:, schema.item_numeric.index(c)] for c in ("log_positives_28d", "log_positives"))
        order = np.lexsort((-total, -recent)).astype(np.int32)
        self._order = order[(total[order] > 0) & (order != 0)]

    def candidates(self, user: UserState, k: int) -> Rows:
        return self._order[:k]


class ContentNeighbours:
    """Items whose content vector is near one of the user's recent positives (largest inner product over them)."""

    name = "content_neighbours"

    def __init__(self, items: ItemTable, schema: FeatureSchema, recent: int = 20) -> None:
        self._items = items
        self._positive = schema.positive
        self._recent = recent

    def candidates(self, user: UserState, k: int) -> Rows:
        seeds = recent_positives(user.history, self._positive, self._recent)
        if not len(seeds):
            return np.zeros(0, np.int32)
        return nearest(self._items.vectors, self._items.vectors[seeds].astype(np.float32), k)


def recent_positives(history: History, positive: tuple[int, ...], most: int) -> Rows:
    """Distinct known items of the newest positive actions, newest first. int32 [≤ most]."""
    liked = history.item[np.isin(history.action, positive) & (history.item != 0)]
    _, first = np.unique(liked, return_index=True)
    newest: Rows = liked[np.sort(first)[:most]]
    return newest


def nearest(vectors: NDArray[np.float16], queries: Floats, k: int) -> Rows:
    """Rows with the largest inner product with any query, exact, best first; row 0 and zero vectors never.

    Args:
        vectors: fp16 [N, D], may be memory-mapped: read once, in chunks.
        queries: float32 [Q, D].
    """
    best_rows, best = np.zeros(0, np.int32), np.zeros(0, np.float32)
    for start in range(0, len(vectors), CHUNK):
        chunk = vectors[start : start + CHUNK].astype(np.float32)
        scores = (chunk @ queries.T).max(axis=1)
        scores[~chunk.any(axis=1)] = -np.inf
        scores[: 1 if start == 0 else 0] = -np.inf
        rows = np.concatenate([best_rows, np.arange(start, start + len(chunk), dtype=np.int32)])
        scores = np.concatenate([best, scores])
        top = np.argsort(-scores, kind="stable")[:k] if len(scores) <= k else _top(scores, k)
        best_rows, best = rows[top], scores[top]
    return best_rows[np.isfinite(best)]


def _top(scores: Floats, k: int) -> NDArray[np.int64]:
    """Indices of the k largest, descending; equal scores in order of index."""
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    among = np.flatnonzero(scores >= threshold)
    return among[np.argsort(-scores[among], kind="stable")[:k]]


def gather(
    retrievers: list[Retriever], user: UserState, size: int, *, exclude_seen: bool = False
) -> tuple[Rows, list[str]]:
    """Up to `size` distinct candidates, taken in turn from each retriever, and the one that named each first."""
    seen = set(user.history.item.tolist()) if exclude_seen else set()
    lists = [[(row, r.name) for row in r.candidates(user, size + len(seen)).tolist()] for r in retrievers]
    chosen: dict[int, str] = {}
    for row, name in _in_turn(lists):
        if row not in seen:
            chosen.setdefault(row, name)
        if len(chosen) == size:
            break
    return np.fromiter(chosen, np.int32, len(chosen)), list(chosen.values())


def _in_turn(lists: list[list[tuple[int, str]]]) -> Iterator[tuple[int, str]]:
    for turn in zip_longest(*lists):
        yield from (pair for pair in turn if pair is not None)
