"""The walks themselves, compiled: one item at a time on each thread, counts in a small hash table.

Untyped as numba compiles it; `components.graph.walks` is the typed door, `components.graph.walks_plain` says the same
plainly.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from components.graph.draws import draw_one, slot_one, stream_one

LANES = 32
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

    `of_items`, `of_boards` = (offsets, nodes, alias keep, alias other), the tables None where draws are uniform;
    `walk` = (walks, length, restart, enough).
    """
    rows, weights, band, reached, hops = out
    offsets = of_items[0]
    bits = 4
    while (1 << bits) < 2 * min(walk[0] * walk[1], len(offsets)):
        bits += 1
    chunks = (len(starts) + CHUNK - 1) // CHUNK
    for chunk in prange(chunks):
        table = np.zeros(1 << bits, np.int64)
        slots = np.empty(1 << (bits - 1), np.int64)
        for at in range(chunk * CHUNK, min(len(starts), (chunk + 1) * CHUNK)):
            start = starts[at]
            if offsets[start] == offsets[start + 1]:
                continue
            found, hops[at] = _walk(start, of_items, of_boards, key, walk, rows.shape[1], table, slots, bits)
            ranked = _ranked(start, found, table, slots)
            _write_top(ranked, start, rows[at], weights[at])
            _write_band(ranked, start, rows.shape[1], band_share, band[at])
            reached[at] = found


@njit
def _walk(start, of_items, of_boards, key, walk, top, table, slots, bits):  # type: ignore[no-untyped-def]
    """Count the visits of all walks from `start` in `table` = item << 32 | visits. Returns (distinct items, hops made).

    Written for the compiler: tuples are taken apart once, since within the loops references would be counted at every
    hop; draws stand apart, so that they become vector instructions; the loop over the table has one way out.
    """
    walks, length, restart, enough = walk
    item_offsets, item_boards, item_keep, item_other = of_items
    board_offsets, board_items, board_keep, board_other = of_boards
    stream, at, board = np.empty(LANES, np.uint64), np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    edge = np.empty(LANES, np.int64)
    again, forth, back = np.empty(LANES, np.uint64), np.empty(LANES, np.uint64), np.empty(LANES, np.uint64)
    shift, last = 32 - bits, (1 << bits) - 1
    found, full, hops = 0, 0, 0
    for group in range(0, walks, LANES):
        lanes = min(LANES, walks - group)
        for lane in range(LANES):
            stream[lane], at[lane] = stream_one(key, start, group + lane), start
        for hop in range(length):
            for lane in range(LANES):
                again[lane] = draw_one(stream[lane], 3 * hop)
                forth[lane] = draw_one(stream[lane], 3 * hop + 1)
                back[lane] = draw_one(stream[lane], 3 * hop + 2)
            for lane in range(lanes):
                node = start if (again[lane] >> _HIGH) < restart else at[lane]
                edge[lane] = _edge(item_offsets, item_keep, item_other, node, forth[lane])
            for lane in range(lanes):
                board[lane] = item_boards[edge[lane]]
            for lane in range(lanes):
                edge[lane] = _edge(board_offsets, board_keep, board_other, board[lane], back[lane])
            for lane in range(lanes):
                at[lane] = board_items[edge[lane]]
            for lane in range(lanes):
                hops += 1
                if at[lane] == start:
                    continue
                item = at[lane]
                slot = ((item * SCATTER) & LOW) >> shift
                entry = table[slot]
                while entry >> 32 != item:
                    if entry == 0:
                        entry = item << 32
                        slots[found] = slot
                        found += 1
                        break
                    slot = (slot + 1) & last
                    entry = table[slot]
                entry += 1
                table[slot] = entry
                if enough and entry & LOW == enough:
                    full += 1
                    if full == top:
                        return found, hops
    return found, hops


@njit
def _edge(offsets, keep, other, node, r):  # type: ignore[no-untyped-def]
    """Position of the edge of `node` that the draw `r` picks."""
    first = offsets[node]
    slot = slot_one(r, offsets[node + 1] - first)
    # Whether there are tables is known when this is compiled: uniform draws then take half of the time.
    if keep is not None and (r & _LOW) > np.uint64(keep[first + slot]):
        slot = np.int64(other[first + slot])
    return first + slot


@njit
def _ranked(start, found, table, slots):  # type: ignore[no-untyped-def]
    """Ranks as sorted numbers (MOST − count, salted row), in place of `slots`; empties the table."""
    for i in range(found):
        slot = slots[i]
        item, visits = table[slot] >> 32, table[slot] & LOW
        slots[i] = ((MOST - visits) << 32) | (((item ^ start) * SCATTER) & LOW)
        table[slot] = 0
    slots[:found].sort()
    return slots[:found]


@njit
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
