"""What finds a user's next items without learning. Each is a `Scorer` of questions.

Shapes: q questions scored together, N items (row 0 unknown), S steps of the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from components.contract import Contract, Role
from components.evaluation.next_items import Ints, Questions, Scorer
from components.history.statistics import DAY
from components.models.source import row_groups

Scores = NDArray[np.float32]

POPULAR_DAYS, FOLLOWED_DAYS = 28, 84
"""Days before the question that popularity counts; before the split that what followed is learned from."""

NEWEST = 10
"""Events whose content says what is like them."""

TIE = 1e-3
"""Of the largest popularity: orders items that a rival scores alike."""


@dataclass(frozen=True)
class Log:
    """Positive actions of everybody, by time.

    Attributes:
        user, item, time: int64 [M]; a number per user, rows of the item table, µs since epoch.
    """

    user: Ints
    item: Ints
    time: Ints

    @classmethod
    def read(cls, files: list[str], contract: Contract, window: tuple[int, int]) -> Self:
        """Those inside the window. Memory is that of the window's actions."""
        parts, users = [], 0
        for group in row_groups(files):
            rows = pl.DataFrame(group.read(["item", "action", "timestamp"])).with_row_index("user", users)
            users += rows.height
            parts.append(
                rows.explode("item", "action", "timestamp").filter(
                    pl.col("action").is_in(contract.indices(Role.POSITIVE)),
                    pl.col("item") > 0,
                    pl.col("timestamp").is_between(*window, closed="left"),
                )
            )
        log = pl.concat(parts).sort("timestamp", "user", "item")
        return cls(*(log[c].cast(pl.Int64).to_numpy() for c in ("user", "item", "timestamp")))

    def before(self, stop: int) -> Log:
        end = int(np.searchsorted(self.time, stop))
        return Log(self.user[:end], self.item[:end], self.time[:end])


@dataclass(frozen=True)
class Rivals:
    """
    Args:
        log: of the questions' window and of the days before it that are counted.
        split: its first moment; what followed what is learned from before it.
        vectors: content of the items, [N, d].
    """

    questions: Questions
    log: Log
    split: int
    vectors: NDArray[np.float32]
    positive: list[int]

    @property
    def items(self) -> int:
        return len(self.vectors)

    @cached_property
    def _count_as_of(self) -> Callable[[int], Scores]:
        return lru_cache(maxsize=256)(self._count)

    def _count(self, day: int) -> Scores:
        low, high = np.searchsorted(self.log.time, [(day - POPULAR_DAYS) * DAY, day * DAY])
        return np.bincount(self.log.item[low:high], minlength=self.items).astype(np.float32)

    def popularity(self, asked: Ints) -> Scores:
        """How often anybody chose an item in the days before the question's midnight."""
        return np.stack([self._count_as_of(int(t) // DAY) for t in self.questions.time_Q[asked]])

    def _tie(self, asked: Ints) -> Scores:
        popular = self.popularity(asked)
        return TIE * popular / np.maximum(popular.max(1, keepdims=True), 1)

    def personal(self, asked: Ints) -> Scores:
        """How often the user chose an item before; ties by popularity."""
        scores = self._tie(asked)
        for row, question in enumerate(asked):
            np.add.at(scores[row], self._own(int(question))[0], 1.0)
        return scores

    def _own(self, question: int) -> tuple[Ints, Ints]:
        """Items and times of the user's positive actions before a question, oldest first."""
        events, begin, end = self.questions.events, self.questions.begin_Q[question], self.questions.end_Q[question]
        known = np.isin(events["action"][begin:end], self.positive) & (events["item"][begin:end] > 0)
        return events["item"][begin:end][known], events["timestamp"][begin:end][known]

    def _last(self, question: int) -> Ints:
        """Different items of the newest moment before a question."""
        item, time = self._own(question)
        return np.unique(item[time == time[-1]]) if len(item) else item

    def content(self, asked: Ints) -> Scores:
        """Likeness to the content of the user's newest items."""
        mean = np.stack([self.vectors[self._own(int(q))[0][-NEWEST:]].sum(0) for q in asked])
        return mean @ self.vectors.T + self._tie(asked)

    def followers(self, asked: Ints) -> Scores:
        """How often anybody who had chosen an item of the user's last moment chose an item at the next one."""
        last = [self._last(int(q)) for q in asked]
        owner = np.repeat(np.arange(len(asked)), [len(items) for items in last])
        shape = len(asked), self.items
        there = np.ones(len(owner), np.float32)
        mine = sparse.csr_matrix((there, (owner, np.concatenate([np.zeros(0, np.int64), *last]))), shape=shape)
        earlier, later = self._transitions
        return np.asarray(((mine @ earlier.T) @ later).toarray(), np.float32) + self._tie(asked)

    @cached_property
    def _transitions(self) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Items of each step and of the same user's next one, [S, N] each."""
        log = self.log.before(self.split)
        order = np.lexsort((log.time, log.user))
        user, item, time = log.user[order], log.item[order], log.time[order]
        begins = np.append(True, (np.diff(user) != 0) | (np.diff(time) != 0)) if len(user) else np.zeros(0, bool)
        step = np.cumsum(begins) - 1
        steps = sparse.csr_matrix((np.ones(len(step), np.float32), (step, item)), shape=(begins.sum(), self.items))
        steps.data[:] = 1
        of_user = user[begins]
        goes_on = np.flatnonzero(of_user[1:] == of_user[:-1])
        return steps[goes_on], steps[goes_on + 1]

    def scorers(self) -> dict[str, Scorer]:
        names = ("popularity", "personal", "followers", "content")
        return {name: getattr(self, name) for name in names}
