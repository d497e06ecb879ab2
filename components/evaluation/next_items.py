"""Held-out questions: what does a user choose at the next moment, of everything there is?

Shapes: Q questions, L events of a window, P (question, chosen item) pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.contract import Contract, Role
from components.evaluation.retrieval import Places, places
from components.history.keys import keys, mix
from components.models.source import Piece, row_groups
from components.models.tensors import Tensors

COLUMNS = ["user_id", "item", "item_key", "action", "surface", "timestamp"]
LISTS = COLUMNS[1:]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Scorer = Callable[[Ints], NDArray[np.float32]]
"""Numbers of questions [q] → scores of all items [q, N]."""


@dataclass(frozen=True)
class Questions:
    """Users before some of their moments, and what they then chose.

    Attributes:
        user_Q: int64 key of the user; time_Q: int64 moment (µs since epoch).
        begin_Q, end_Q: int64 ranges of `events`: all of the user's events strictly before the moment, oldest first.
        events: 'item' (row), 'item_key', 'action', 'surface', 'timestamp' of the users asked about, int64 [M] each.
        question_P, item_P: int64 pairs; item_P rows of the item table, distinct per question.
    """

    user_Q: Ints
    time_Q: Ints
    begin_Q: Ints
    end_Q: Ints
    events: dict[str, Ints]
    question_P: Ints
    item_P: Ints

    def __len__(self) -> int:
        return len(self.user_Q)

    def places(self, scorer: Scorer, size: int = 128) -> Places:
        """Where the chosen items stand among all items; `size` questions scored at a time."""
        parts = []
        for start in range(0, len(self), size):
            asked = np.arange(start, min(start + size, len(self)))
            a, b = np.searchsorted(self.question_P, [start, start + size])
            parts.append(places_of(scorer(asked), self.question_P[a:b] - start, self.item_P[a:b]))
        return Places.concat(parts)

    def batches(self, length: int, size: int, part: int = 0, parts: int = 1) -> list[QueryBatch]:
        """Every `parts`-th question from `part` on, `size` at a time; as many batches for every part, the last ones
        perhaps empty."""
        mine = np.arange(part, len(self), parts)
        largest = math.ceil(len(self) / parts)
        return [self.batch(mine[n * size : (n + 1) * size], length) for n in range(math.ceil(largest / size))]

    def batch(self, question_Q: Ints, length: int) -> QueryBatch:
        """Some questions, each with the newest `length` events before it."""
        begin = np.maximum(self.begin_Q[question_Q], self.end_Q[question_Q] - length)
        count = self.end_Q[question_Q] - begin
        at = np.minimum(begin[:, None] + np.arange(length), max(0, len(self.events["item_key"]) - 1))
        there = np.arange(length) < count[:, None]
        grids = {
            f"{name}_QL": np.where(there, self.events[column][at], absent)
            for name, column, absent in (("key", "item_key", -1), ("action", "action", 0), ("surface", "surface", 0))
        }
        place = np.full(len(self), -1)
        place[question_Q] = np.arange(len(question_Q))
        pair = np.flatnonzero(place[self.question_P] >= 0)
        arrays = {
            **grids,
            "length_Q": count,
            "question_Q": question_Q,
            "owner_P": place[self.question_P[pair]],
            "item_P": self.item_P[pair],
        }
        return QueryBatch(**{name: torch.from_numpy(np.ascontiguousarray(v, np.int64)) for name, v in arrays.items()})


@dataclass(frozen=True)
class QueryBatch(Tensors):
    """
    Attributes:
        key_QL (−1 behind the last event), action_QL, surface_QL, length_Q: windows, oldest first; length may be 0.
        question_Q: numbers of the questions; owner_P: place in it of each pair's; item_P: rows of the item table.
    """

    key_QL: Tensor
    action_QL: Tensor
    surface_QL: Tensor
    length_Q: Tensor
    question_Q: Tensor
    owner_P: Tensor
    item_P: Tensor

    def __len__(self) -> int:
        return len(self.question_Q)


def places_of(scores_QN: NDArray[np.float32], owner_P: Ints, item_P: Ints) -> Places:
    """Where chosen items stand among all items but the unknown one (row 0)."""
    return places(scores_QN, np.zeros(len(scores_QN), np.int64), owner_P, item_P)


def recall(found: Places, owner_P: Ints, questions: int, k: int) -> Floats:
    """Share of each question's items that are among the first `k`. [Q]."""
    size = np.maximum(np.bincount(owner_P, minlength=questions), 1)
    return np.asarray(np.bincount(owner_P, found.hit(k), questions) / size, np.float64)


def reciprocal_rank(found: Places, owner_P: Ints, questions: int) -> Floats:
    """1 / rank of the highest of each question's items. [Q]."""
    best = np.zeros(questions)
    np.maximum.at(best, owner_P, found.reciprocal(1))
    return best


def ask(
    files: list[str], contract: Contract, window: tuple[int, int], most: int, per_user: int | None = None
) -> Questions:
    """Moments of the window at which users chose something, each with what was chosen; of more than `most` those with
    the lowest hash. Two passes over `histories`; in memory are the users asked about.

    Args:
        window: [start, stop), µs since epoch.
        per_user: at most so many moments of a user.
    """
    groups, positive = row_groups(files), contract.indices(Role.POSITIVE)
    found = pl.concat([_moments(group, number, positive, window) for number, group in enumerate(groups)])
    order = pl.Series(mix(found["user"].to_numpy() ^ found["time"].to_numpy()))
    found = found.with_columns(order=order).sort("order", "user", "time")
    if per_user is not None:
        found = found.group_by("user", maintain_order=True).head(per_user).sort("order", "user", "time")
    chosen = found.head(most).sort("group", "row", "time")
    asked = _Asked()
    for (number,), moments in chosen.group_by("group", maintain_order=True):
        asked.add(groups[int(str(number))], moments, positive)
    return asked.questions()


def _moments(group: Piece, number: int, positive: list[int], window: tuple[int, int]) -> pl.DataFrame:
    """Different moments of a row group's users inside the window, with a known positive: `row user time group`."""
    rows = group.read(["user_id", "item", "action", "timestamp"])
    events = pl.DataFrame(rows).with_row_index("row").explode("item", "action", "timestamp")
    asked = events.filter(
        pl.col("action").is_in(positive),
        pl.col("item") > 0,
        pl.col("timestamp").is_between(*window, closed="left"),
    )
    row = asked["row"].cast(pl.Int64)
    user = pl.Series(keys(rows["user_id"].to_pylist())).gather(row)
    return pl.DataFrame({"row": row, "user": user, "time": asked["timestamp"]}).unique().with_columns(group=number)


class _Asked:
    """Questions being put together, a row group at a time."""

    def __init__(self) -> None:
        self._events: list[dict[str, Ints]] = []
        self._moments: list[tuple[int, int, int, int]] = []
        self._targets: list[Ints] = []
        self._begin = 0

    def add(self, group: Piece, moments: pl.DataFrame, positive: list[int]) -> None:
        rows = group.read(COLUMNS)
        for (row,), asked in moments.group_by("row", maintain_order=True):
            stored = {n: rows[n][int(str(row))].values.to_numpy(zero_copy_only=False) for n in LISTS}
            own = {name: values[::-1].astype(np.int64) for name, values in stored.items()}
            known = np.isin(own["action"], positive) & (own["item"] > 0)
            for user, time in asked.select("user", "time").iter_rows():
                before, after = (int(np.searchsorted(own["timestamp"], time, side)) for side in ("left", "right"))
                self._moments.append((user, time, self._begin, self._begin + before))
                self._targets.append(np.unique(own["item"][before:after][known[before:after]]))
            self._events.append(own)
            self._begin += len(known)

    def questions(self) -> Questions:
        user, time, begin, end = np.array(self._moments, np.int64).reshape(-1, 4).T
        sizes = [len(t) for t in self._targets]
        none = np.zeros(0, np.int64)
        return Questions(
            user_Q=user,
            time_Q=time,
            begin_Q=begin,
            end_Q=end,
            events={name: np.concatenate([none, *(e[name] for e in self._events)]) for name in LISTS},
            question_P=np.repeat(np.arange(len(sizes)), sizes),
            item_P=np.concatenate([none, *self._targets]),
        )
