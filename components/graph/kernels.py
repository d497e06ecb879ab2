"""The walks themselves, compiled: one item at a time on each thread, counts in a small hash table.

Untyped as numba compiles it; `components.graph.walks` is the typed door, `components.graph.walks_plain` says the same
plainly.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from components.graph.draws import draw_one, slot_one, stream_one

LANES = 16
"""Walks of an item that hop side by side, so that their cache misses overlap. Visits count in the order
(group of lanes, hop, lane), which matters where an early stop cuts."""

CHUNK = 64
"""Items that a thread takes at once."""

SCATTER = 0x9E3779B1
"""Odd, hence a bijection mod 2³²: ties of counts are broken by (row ^ item) × SCATTER, not by the order of rows."""

GATHER = pow(SCATTER, -1, 2**32)
LOW = 0xFFFFFFFF
MOST = 2**31 - 1

_LOW, _HIGH = np.uint64(LOW), np.uint64(32)


def salted(rows: NDArray[np.int64], item: int) -> NDArray[np.int64]:
    """Order among equal counts: [n] → [n] distinct numbers below 2³²."""
    return ((rows ^ item) * SCATTER) & LOW


@njit(parallel=True, cache=True)
def walk_all(starts, of_items, of_boards, key, walk, band_share, out):  # type: ignore[no-untyped-def]
    """Fill `out` = (rows, weights, band, reached, hops) for every start.

    `of_items`, `of_boards` = (offsets, nodes, alias keep, alias other); `walk` = (walks, length, restart, enough).
    """
    rows, weights, band, reached, hops = out
    walks, length, _, _ = walk
    bits = 4
    while (1 << bits) < 2 * min(walks * length, len(of_items[0])):
        bits += 1
    chunks = (len(starts) + CHUNK - 1) // CHUNK
    for chunk in prange(chunks):
        table = np.zeros(1 << bits, np.int32), np.zeros(1 << bits, np.int32)
        slots = np.empty(1 << (bits - 1), np.int64)
        order = np.empty(1 << (bits - 1), np.int64)
        for at in range(chunk * CHUNK, min(len(starts), (chunk + 1) * CHUNK)):
            start = starts[at]
            if of_items[0][start] == of_items[0][start + 1]:
                continue
            found, hops[at] = _walk(start, of_items, of_boards, key, walk, rows.shape[1], table, slots, bits)
            ranked = _ranked(start, found, table, slots, order)
            _write_top(ranked, start, rows[at], weights[at])
            _write_band(ranked, start, rows.shape[1], band_share, band[at])
            reached[at] = found


@njit(inline="always")
def _edge(side, node, r):  # type: ignore[no-untyped-def]
    """Position of the edge of `node` that the draw `r` picks."""
    offsets, _, keep, other = side
    first = offsets[node]
    slot = slot_one(r, offsets[node + 1] - first)
    if len(keep) and (r & _LOW) > np.uint64(keep[first + slot]):
        slot = np.int64(other[first + slot])
    return first + slot


@njit
def _walk(start, of_items, of_boards, key, walk, top, table, slots, bits):  # type: ignore[no-untyped-def]
    """Count the visits of all walks from `start`. Returns (distinct items, hops made)."""
    walks, length, restart, enough = walk
    stream, at, board = np.empty(LANES, np.uint64), np.empty(LANES, np.int32), np.empty(LANES, np.int32)
    found, full, hops = 0, 0, 0
    for group in range(0, walks, LANES):
        lanes = min(LANES, walks - group)
        for lane in range(lanes):
            stream[lane], at[lane] = stream_one(key, start, group + lane), start
        for hop in range(length):
            for lane in range(lanes):
                if hop and (draw_one(stream[lane], 3 * hop) >> _HIGH) < restart:
                    at[lane] = start
                board[lane] = of_items[1][_edge(of_items, at[lane], draw_one(stream[lane], 3 * hop + 1))]
            for lane in range(lanes):
                at[lane] = of_boards[1][_edge(of_boards, board[lane], draw_one(stream[lane], 3 * hop + 2))]
            for lane in range(lanes):
                hops += 1
                if at[lane] == start:
                    continue
                visits, found = _count(at[lane], table, slots, found, bits)
                full += visits == enough
                if enough and full >= top:
                    return found, hops
    return found, hops


@njit(inline="always")
def _count(item, table, slots, found, bits):  # type: ignore[no-untyped-def]
    """Add a visit. Returns (visits of the item, distinct items)."""
    items, counts = table
    slot = ((np.int64(item) * SCATTER) & LOW) >> (32 - bits)
    while items[slot] != item and items[slot] != 0:
        slot = (slot + 1) & ((1 << bits) - 1)
    if items[slot] == 0:
        items[slot] = item
        slots[found] = slot
        found += 1
    counts[slot] += 1
    return counts[slot], found


@njit
def _ranked(start, found, table, slots, order):  # type: ignore[no-untyped-def]
    """Ranks as sorted numbers (MOST − count, salted row); empties the table."""
    items, counts = table
    for i in range(found):
        slot = slots[i]
        order[i] = ((MOST - np.int64(counts[slot])) << 32) | (((np.int64(items[slot]) ^ start) * SCATTER) & LOW)
        items[slot], counts[slot] = 0, 0
    order[:found].sort()
    return order[:found]


@njit(inline="always")
def _item(code, start):  # type: ignore[no-untyped-def]
    return (((code & LOW) * GATHER) & LOW) ^ start


@njit
def _write_top(ranked, start, rows, weights):  # type: ignore[no-untyped-def]
    n = min(len(ranked), len(rows))
    top, total = np.empty(n, np.int64), 0
    for i in range(n):
        top[i] = ((ranked[i] >> 32) << 32) | _item(ranked[i], start)
        total += MOST - (ranked[i] >> 32)
    top.sort()
    for i in range(n):
        rows[i] = top[i] & LOW
        weights[i] = (MOST - (top[i] >> 32)) / total


@njit
def _write_band(ranked, start, top, band_share, band):  # type: ignore[no-untyped-def]
    first = max(top, int(np.ceil(band_share[0] * len(ranked))))
    size = int(np.ceil(band_share[1] * len(ranked))) - first
    kept = min(size, len(band))
    for j in range(kept):
        band[j] = _item(ranked[first + j * size // kept], start)
