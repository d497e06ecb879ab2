"""Random graphs and a walk written out in plain Python."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import strategies as st

from components.graph.bipartite import BipartiteGraph


@st.composite
def graphs(draw: st.DrawFn) -> BipartiteGraph:
    """At most 40 items and 15 boards, with or without weights, with items that have no board."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_items, n_boards = draw(st.integers(2, 40)), draw(st.integers(1, 15))
    edges = draw(st.integers(0, 200))
    items = rng.integers(1, n_items, edges).astype(np.int32)
    boards = rng.integers(0, n_boards, edges).astype(np.int32)
    weights = rng.choice([0.25, 1.0, 3.0], edges).astype(np.float32) if draw(st.booleans()) else None
    return BipartiteGraph.from_edges(items, boards, weights, n_items=n_items, n_boards=n_boards)


def pagerank(graph: BipartiteGraph, start: int, restart: float, length: int) -> np.ndarray:
    """Expected share of visits of each item other than `start` over `length` hops, by the transition matrix."""
    weight = np.zeros((graph.items, graph.boards))
    for item in range(graph.items):
        edges = slice(graph.item_offsets[item], graph.item_offsets[item + 1])
        weight[item, graph.item_boards[edges]] = graph.item_weights[edges]
    to_board = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
    to_item = weight.T / np.maximum(weight.sum(0)[:, None], 1e-12)
    hop = to_board @ to_item
    begin = np.eye(graph.items)[start]
    at, visits = begin @ hop, np.zeros(graph.items)
    for _ in range(length):
        visits += at
        at = ((1 - restart) * at + restart * begin) @ hop
    visits[start] = 0
    return visits / visits.sum()


def common(rows: np.ndarray) -> Counter[int]:
    return Counter(int(r) for r in rows.ravel() if r)
