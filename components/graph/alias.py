"""Weighted draws in constant time: Walker's alias tables over the neighbours of every node, in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from components.graph.bipartite import BipartiteGraph, Nodes, Offsets, Weights


@dataclass(frozen=True)
class AliasTables:
    """Per edge: slot j of a node is kept when the low half of the draw is ≤ `keep[j]`, else `other[j]` is taken.

    Attributes:
        keep: uint32 [E].
        other: int32 [E], position among the node's neighbours.
    """

    keep: NDArray[np.uint32]
    other: Nodes

    @classmethod
    def build(cls, offsets: Offsets, weights: Weights) -> AliasTables:
        keep, other = np.empty(len(weights), np.uint32), np.empty(len(weights), np.int32)
        _build(np.asarray(offsets), np.asarray(weights), keep, other)
        return cls(keep, other)

    @classmethod
    def none(cls) -> AliasTables:
        """For uniform draws."""
        return cls(np.empty(0, np.uint32), np.empty(0, np.int32))


def tables_of(graph: BipartiteGraph) -> tuple[AliasTables, AliasTables]:
    """Tables of items and of boards; empty when no weights differ."""
    if not graph.is_weighted:
        return AliasTables.none(), AliasTables.none()
    return (
        AliasTables.build(graph.item_offsets, graph.item_weights),
        AliasTables.build(graph.board_offsets, graph.board_weights),
    )


@njit(cache=True)
def _build(offsets, weights, keep, other):  # type: ignore[no-untyped-def]
    """Vose's construction, node by node, sequential so that it never depends on threads."""
    longest = 0
    for node in range(len(offsets) - 1):
        longest = max(longest, offsets[node + 1] - offsets[node])
    scaled, small, large = np.empty(longest), np.empty(longest, np.int32), np.empty(longest, np.int32)
    for node in range(len(offsets) - 1):
        first, n = offsets[node], offsets[node + 1] - offsets[node]
        total = 0.0
        for j in range(n):
            total += weights[first + j]
        n_small, n_large = 0, 0
        for j in range(n):
            scaled[j] = weights[first + j] * n / total
            keep[first + j], other[first + j] = 0xFFFFFFFF, j
            if scaled[j] < 1:
                small[n_small] = j
                n_small += 1
            else:
                large[n_large] = j
                n_large += 1
        while n_small and n_large:
            n_small -= 1
            s, big = small[n_small], large[n_large - 1]
            keep[first + s] = np.uint32(min(4294967295.0, scaled[s] * 4294967296.0))
            other[first + s] = big
            scaled[big] -= 1 - scaled[s]
            if scaled[big] < 1:
                n_large -= 1
                small[n_small] = big
                n_small += 1
