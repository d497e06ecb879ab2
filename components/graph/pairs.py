"""Positive pairs: an item, and one that the same user chose right after it (PinSage, section 3.3).

Where equal times are unordered, a moment is a set of items: pairs lead from one moment's items to the next moment's,
never between items of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.history.keys import mix

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Choices:
    """Positive actions sorted by (user, time), then as stored.

    Attributes:
        user: int64 [M], a key of the user; hashes into the order of the pairs that are kept.
        item: int32 [M], rows of the item table, > 0.
        timestamp: int64 [M], µs.
    """

    user: Ints
    item: NDArray[np.int32]
    timestamp: Ints

    def take(self, at: NDArray[np.integer] | NDArray[np.bool_]) -> Choices:
        return Choices(self.user[at], self.item[at], self.timestamp[at])

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True)
class Pairs:
    """
    Attributes:
        query, positive: int32 [P], rows of the item table; never equal.
        user: int64 [P], as in `Choices`.
        timestamp: int64 [P], µs, of the positive; the query is strictly earlier.
        weight: float32 [P]; the pairs of one step (from a moment to the next) add up to 1.
    """

    query: NDArray[np.int32]
    positive: NDArray[np.int32]
    user: Ints
    timestamp: Ints
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.query)


def consecutive_pairs(choices: Choices, *, ordered: bool, window_us: int, cap: int, seed: int = 0) -> Pairs:
    """Pairs from each moment of a user to the next, when that comes within `window_us`.

    Args:
        ordered: equal times are in stored order: a moment is then one action, and repeats of an item in a row are one.
        cap: pairs kept per step, in an order by hash that uses as many different items of both sides as possible.
        seed: of that order.
    """
    moments = _actions(choices) if ordered else _sets(choices, seed)
    choices = moments.choices
    leaving, coming = moments.query[:-1], moments.positive[1:]
    gap = choices.timestamp[coming] - choices.timestamp[leaving]
    follows = (choices.user[coming] == choices.user[leaving]) & (gap > 0) & (gap <= window_us)
    step = np.flatnonzero(follows)
    return _cross(choices, leaving[step], moments.size[step], coming[step], moments.size[step + 1], cap)


@dataclass(frozen=True)
class _Moments:
    """Where the items of each moment begin: as queries of the next moment, and as positives of the one before."""

    choices: Choices
    query: Ints
    positive: Ints
    size: Ints


def _actions(choices: Choices) -> _Moments:
    """Each action a moment; of a run of one item the last action is the query, the first one the positive."""
    n = len(choices)
    new = np.ones(n, bool)
    new[1:] = (choices.user[1:] != choices.user[:-1]) | (choices.item[1:] != choices.item[:-1])
    first = np.flatnonzero(new)
    return _Moments(choices, np.append(first[1:], n)[: len(first)] - 1, first, np.ones_like(first))


def _sets(choices: Choices, seed: int) -> _Moments:
    """Equal times of a user as one moment, each item once, in an order by hash."""
    code = (choices.timestamp << 1) ^ (choices.user * 0x9E3779B1) ^ (choices.item.astype(np.int64) << 20)
    order = np.lexsort((choices.item, mix(code, seed), choices.timestamp, choices.user))
    choices = choices.take(order)
    n = len(choices)
    same_time = np.zeros(n, bool)
    same_time[1:] = (choices.user[1:] == choices.user[:-1]) & (choices.timestamp[1:] == choices.timestamp[:-1])
    repeated = same_time.copy()
    repeated[1:] &= choices.item[1:] == choices.item[:-1]
    choices = choices.take(~repeated)
    start = np.flatnonzero(~same_time[~repeated])
    return _Moments(choices, start, start, np.diff(np.append(start, len(choices))))


def board_pairs(saved: Choices, *, window_us: int, cap: int, seed: int = 0) -> Pairs:
    """Pairs of two items of a board, saved within `window_us` of each other; the later one is the positive.

    Of equal times, the direction is that of the order by hash.

    Args:
        saved: `user` is the key of the board; an item counts once, from its first time.
        cap: pairs tried per board, in an order by hash that uses as many different items as possible.
    """
    once = _once(saved, seed)
    start, size = _runs(once.user)
    # Pair j is (j mod size, its follower at a distance that grows with each round): every pair of a board once.
    count = np.minimum(size * (size - 1) // 2, cap)
    board, j = _spread(count)
    one = start[board] + j % size[board]
    other = start[board] + (j + 1 + j // size[board]) % size[board]
    later = once.timestamp[other] < once.timestamp[one]
    query, positive = np.where(later, other, one), np.where(later, one, other)
    near = once.timestamp[positive] - once.timestamp[query] <= window_us
    return _pairs(once, board[near], query[near], positive[near])


def _once(saved: Choices, seed: int) -> Choices:
    """Each item of a board once, at its first time, boards in an order by hash of their items."""
    first = saved.take(np.lexsort((saved.timestamp, saved.item, saved.user)))
    new = np.ones(len(first), bool)
    new[1:] = (first.user[1:] != first.user[:-1]) | (first.item[1:] != first.item[:-1])
    first = first.take(new)
    chance = mix((first.user * 0x9E3779B1) ^ (first.item.astype(np.int64) << 20), seed)
    return first.take(np.lexsort((first.item, chance, first.user)))


def _cross(choices: Choices, a: Ints, size_a: Ints, b: Ints, size_b: Ints, cap: int) -> Pairs:
    """Of each step the first `cap` of all size_a × size_b pairs.

    Pair j is (j mod size_a, (j + ⌊j / lcm⌋) mod size_b): every pair once, and both sides used evenly from the start.
    """
    step, j = _spread(np.minimum(size_a * size_b, cap))
    shift = j // np.lcm(size_a, size_b)[step]
    query, positive = a[step] + j % size_a[step], b[step] + (j + shift) % size_b[step]
    differ = choices.item[query] != choices.item[positive]
    return _pairs(choices, step[differ], query[differ], positive[differ])


def _pairs(choices: Choices, step: Ints, query: Ints, positive: Ints) -> Pairs:
    """Pairs at positions of `choices`; those of a step share a weight of 1."""
    weight = 1 / np.bincount(step)[step] if len(step) else np.empty(0)
    item, user, time = choices.item, choices.user[positive], choices.timestamp[positive]
    return Pairs(item[query], item[positive], user, time, weight.astype(np.float32))


def _spread(count: Ints) -> tuple[Ints, Ints]:
    """(group, number within it) of every member of groups of the given sizes."""
    group = np.repeat(np.arange(len(count)), count)
    return group, np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)


def _runs(values: Ints) -> tuple[Ints, Ints]:
    """Start and length of each run of equal values."""
    new = np.ones(len(values), bool)
    new[1:] = values[1:] != values[:-1]
    start = np.flatnonzero(new)
    return start, np.diff(np.append(start, len(values)))
