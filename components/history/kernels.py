"""Compiled loops of the ranking rows, each one pass over sorted arrays.

Untyped as numba compiles them; `examples` and `statistics` are the typed doors, `build` says the same plainly.
"""

from __future__ import annotations

import numpy as np
from numba import njit

SHORT = 64
"""Candidates up to which insertion is the fastest way to sort."""


@njit(cache=True, nogil=True)
def occurrences(value, order, first, end, offsets, wanted, size, count, newest):  # type: ignore[no-untyped-def]
    """How often each wanted value occurs in its request's window of positions, and the last position where it does.

    One window slides over the log and adds and removes a position once: requests come with rising `first` and `end`.

    Args:
        value: int32 [M], 0 = nothing to count, < size.
        order: requests by (end, first), [R]; `first`, `end`: window [first, end) of each, [R].
        offsets: of each request's candidates, [R + 1]; wanted: their values, int32 [n], 0 = none.
        count, newest: [n], filled; `newest` is left as it is where `count` is 0.
    """
    held = np.zeros(size, np.int32)
    last = np.zeros(size, np.int64)
    low = high = 0
    for r in order:
        while high < end[r]:
            held[value[high]] += 1
            last[value[high]] = high
            high += 1
        while low < first[r]:
            held[value[low]] -= 1
            low += 1
        for c in range(offsets[r], offsets[r + 1]):
            found = held[wanted[c]] if wanted[c] else 0
            count[c] = found
            if found:
                newest[c] = last[wanted[c]]


@njit(cache=True, nogil=True)
def sort_segments(begin, end, key, out):  # type: ignore[no-untyped-def]
    """Positions of each segment [begin, end) in ascending order of `key`, one segment after another, into `out`."""
    filled = 0
    for s in range(len(begin)):
        size = end[s] - begin[s]
        if size > SHORT:
            out[filled : filled + size] = begin[s] + np.argsort(key[begin[s] : end[s]])
        else:
            for i in range(size):
                at, own = filled + i, key[begin[s] + i]
                while at > filled and key[out[at - 1]] > own:
                    out[at] = out[at - 1]
                    at -= 1
                out[at] = begin[s] + i
        filled += size


@njit(cache=True, nogil=True)
def totals_before(start, day, positives, users, row, at, week, month, out):  # type: ignore[no-untyped-def]
    """Sums of an item's daily counts before a day: of 7 days, of 28, of all, and of its users.

    Args:
        start: of each item's days, [N + 1]; day: ascending within an item, [K].
        positives, users: running totals over all K, [K + 1], starting with 0.
        row, at: item and day asked for, [n]; week, month: days of the short windows.
        out: int64 [n, 4], filled.
    """
    for i in range(len(row)):
        begin, stop = start[row[i]], start[row[i] + 1]
        end = _lower(day, begin, stop, at[i])
        out[i, 0] = positives[end] - positives[_lower(day, begin, end, at[i] - week)]
        out[i, 1] = positives[end] - positives[_lower(day, begin, end, at[i] - month)]
        out[i, 2] = positives[end] - positives[begin]
        out[i, 3] = users[end] - users[begin]


@njit(cache=True, nogil=True)
def positions(start, timestamp, user, at, out):  # type: ignore[no-untyped-def]
    """Of each user, the position of the first action at or after a moment.

    Args:
        start: of each user's actions, [U + 1]; timestamp: ascending within a user, [M].
        user, at: user and moment asked for, [n]; out: int64 [n], filled.
    """
    for i in range(len(user)):
        out[i] = _lower(timestamp, start[user[i]], start[user[i] + 1], at[i])


@njit(cache=True, nogil=True)
def _lower(sorted_values, low, high, wanted):  # type: ignore[no-untyped-def]
    """First position in [low, high) whose value is not below `wanted`, else `high`."""
    while low < high:
        middle = (low + high) // 2
        if sorted_values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low
