"""What each moment of a history is to predict (PinFM, section 3.2).

A *step* is one action, or where equal times are unordered all actions at a time. A step predicts from its last event
and only what is strictly later: of a tied basket no item is to say another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.contract import Ties

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def runs(values: Ints) -> tuple[Ints, Ints]:
    """Where each run of equal values begins, and how long it is."""
    begin = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
    return begin, np.diff(np.append(begin, len(values)))


@dataclass(frozen=True)
class Pairs:
    """Which event predicts what: `source` and `target` are events [K], `weight` sums to 1 over those that predict."""

    source: Ints
    target: Ints
    weight: NDArray[np.float32]

    @classmethod
    def mean(cls, source: Ints, target: Ints) -> Self:
        """Each source the mean of its pairs, the whole the mean of its sources."""
        _, place, count = np.unique(source, return_inverse=True, return_counts=True)
        return cls(source, target, (1 / (count[place] * max(1, len(count)))).astype(np.float32))


@dataclass(frozen=True)
class Steps:
    """Events as steps, for the losses of section 3.2. M events, T steps, G positive events.

    Attributes:
        segment_M, item_M: segment and item of each event (any number of an item's own); step_M: its step.
        last_T: last event of each step; final_T: the last step of its segment.
        positive_G: the positive events, in order.
        bound_T: how many positive events come before each step [T + 1].
    """

    segment_M: Ints
    item_M: Ints
    step_M: Ints
    last_T: Ints
    final_T: Ints
    positive_G: Ints
    bound_T: Ints

    @classmethod
    def of(cls, segment_M: Ints, item_M: Ints, time_M: Ints, positive_M: Bools, ties: Ties) -> Self:
        begins = np.ones(len(segment_M), bool)
        if ties is Ties.UNORDERED:
            begins[1:] = (np.diff(segment_M) != 0) | (np.diff(time_M) != 0)
        step_M = np.cumsum(begins) - 1
        last_T = np.flatnonzero(np.append(begins[1:], True))
        _, in_segment = runs(segment_M[last_T])
        final_T = np.repeat(np.cumsum(in_segment) - 1, in_segment)
        positive_G = np.flatnonzero(positive_M)
        bound_T = np.searchsorted(step_M[positive_G], np.arange(len(last_T) + 1))
        return cls(segment_M, item_M, step_M, last_T, final_T, positive_G, bound_T)

    def next_token(self) -> Pairs:
        """L_ntl: each step and the positive items of the next one."""
        return self._all(np.arange(len(self.last_T)), self.last_T, 1)

    def multi_token(self, window: int, picks: int, rng: np.random.Generator) -> Pairs:
        """L_mtl: each step and `picks` positives, drawn with replacement, of those in the `window` steps after it.

        Args:
            picks: 0 = all of them.
        """
        if not picks:
            return self._all(np.arange(len(self.last_T)), self.last_T, window, distinct=False)
        low, high = self._ahead(np.arange(len(self.last_T)), window)
        some = high > low
        drawn = low[some, None] + (rng.random((int(some.sum()), picks)) * (high - low)[some, None]).astype(np.int64)
        return Pairs.mean(np.repeat(self.last_T[some], picks), self.positive_G[drawn.ravel()])

    def future_token(self, window: int, downstream: int) -> Pairs:
        """L_ftl: event number `downstream` of each segment and all positives of the `window` steps after its own."""
        begin, count = runs(self.segment_M)
        event = begin[count > downstream] + downstream - 1
        return self._all(self.step_M[event], event, window, distinct=False)

    def _ahead(self, step: Ints, window: int) -> tuple[Ints, Ints]:
        """Range of positive events in the `window` steps after each `step` of the same segment."""
        until = np.minimum(step + window, self.final_T[step]) + 1
        return self.bound_T[step + 1], self.bound_T[until]

    def _all(self, step: Ints, event: Ints, window: int, distinct: bool = True) -> Pairs:
        """Each `event` of a `step` with all positives ahead; `distinct`: as a set of items."""
        low, high = self._ahead(step, window)
        size = high - low
        place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size) + np.repeat(low, size)
        source, target = np.repeat(event, size), self.positive_G[place]
        if distinct and len(source):
            item = np.unique(self.item_M[target], return_inverse=True)[1]
            _, first = np.unique(source * len(item) + item, return_index=True)
            source, target = source[first], target[first]
        return Pairs.mean(source, target)
