"""The slow twin of `components.graph.walks`: plain numpy, one item after another, equal to the bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.graph import draws
from components.graph.alias import AliasTables, tables_of
from components.graph.bipartite import BipartiteGraph, Nodes, Offsets
from components.graph.kernels import LANES, salted
from components.graph.neighbours import Neighbourhoods
from components.graph.walks import WalkConfig, Walked, band_ranks

Ints = NDArray[np.int64]


def walk_plain(graph: BipartiteGraph, config: WalkConfig, items: Nodes | None = None) -> Walked:
    """As `Walker.walk`."""
    starts = np.arange(graph.items) if items is None else items
    of_items, of_boards = tables_of(graph)
    n = len(starts)
    rows, weights = np.zeros((n, config.top), np.int32), np.zeros((n, config.top), np.float32)
    band = np.zeros((n, config.band_size), np.int32)
    reached, hops = np.zeros(n, np.int32), np.zeros(n, np.int32)
    for i, start in enumerate(starts):
        if not graph.degree[start]:
            continue
        visits = in_order(_visits(graph, of_items, of_boards, int(start), config))
        hops[i] = _last_hop(visits, int(start), config)
        seen, counts = np.unique(visits[: hops[i]], return_counts=True)
        seen, counts = seen[seen != start], counts[seen != start]
        ranked = np.lexsort((salted(seen, int(start)), -counts))
        best = ranked[: config.top]
        best = best[np.lexsort((seen[best], -counts[best]))]
        rows[i, : len(best)] = seen[best]
        weights[i, : len(best)] = counts[best] / max(counts[best].sum(), 1)
        chosen = _spread(*band_ranks(config, len(seen)), config.band_size)
        band[i, : len(chosen)] = seen[ranked[chosen]]
        reached[i] = len(seen)
    return Walked(Neighbourhoods(rows, weights), band, reached, hops)


def _visits(
    graph: BipartiteGraph, of_items: AliasTables, of_boards: AliasTables, start: int, config: WalkConfig
) -> Ints:
    """Where each walk is after each hop, int64 [walks, length]."""
    stream = draws.streams(draws.key_of(config.seed), start, np.arange(config.walks))
    at = np.full(config.walks, start)
    visits = np.empty((config.walks, config.length), np.int64)
    for hop in range(config.length):
        if hop:
            again = (draws.draw(stream, 3 * hop) >> np.uint64(32)) < np.uint64(draws.share(config.restart))
            at = np.where(again, start, at)
        board = graph.item_boards[_edges(graph.item_offsets, of_items, at, draws.draw(stream, 3 * hop + 1))]
        at = graph.board_items[_edges(graph.board_offsets, of_boards, board, draws.draw(stream, 3 * hop + 2))]
        visits[:, hop] = at
    return visits


def _edges(offsets: Offsets, tables: AliasTables, nodes: NDArray[np.integer], r: draws.U64) -> Ints:
    first = offsets[nodes]
    degree = (offsets[nodes + 1] - first).astype(np.uint64)
    slot = (((r >> np.uint64(32)) * degree) >> np.uint64(32)).astype(np.int64)
    if len(tables.keep):
        elsewhere = (r & np.uint64(0xFFFFFFFF)) > tables.keep[first + slot]
        slot = np.where(elsewhere, tables.other[first + slot], slot)
    return first + slot


def in_order(visits: Ints) -> Ints:
    """[walks, length] → [walks × length] in the order in which visits count: group of lanes, hop, lane."""
    groups = [visits[first : first + LANES].T.ravel() for first in range(0, len(visits), LANES)]
    return np.concatenate(groups)


def _last_hop(visits: Ints, start: int, config: WalkConfig) -> int:
    """Hops until `top` items have enough visits."""
    count: dict[int, int] = {}
    full = 0
    for hop, item in enumerate(visits.tolist(), start=1):
        if config.early_stop is None:
            break
        if item != start:
            count[item] = count.get(item, 0) + 1
            full += count[item] == config.early_stop
        if full >= config.top:
            return hop
    return len(visits)


def _spread(first: int, last: int, size: int) -> Ints:
    """At most `size` ranks of [first, last), evenly spread."""
    kept = min(last - first, size)
    return first + np.arange(kept) * (last - first) // max(kept, 1)
