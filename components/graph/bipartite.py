"""Items and boards as CSR both ways."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.graph.arrays import ArrayFiles

Offsets = NDArray[np.int64]
Nodes = NDArray[np.int32]
Weights = NDArray[np.float32]


@dataclass(frozen=True)
class BipartiteGraph(ArrayFiles):
    """Edges between N items (rows of the item table; row 0, the unknown item, has none) and B boards.

    Neighbours of a node are sorted and distinct; both directions hold the same E edges. Weights are > 0.

    Attributes:
        item_offsets: int64 [N + 1]; the boards of item i are `item_boards[item_offsets[i]:item_offsets[i + 1]]`.
        item_boards: int32 [E].
        item_weights: float32 [E].
        board_offsets: int64 [B + 1].
        board_items: int32 [E].
        board_weights: float32 [E].
    """

    item_offsets: Offsets
    item_boards: Nodes
    item_weights: Weights
    board_offsets: Offsets
    board_items: Nodes
    board_weights: Weights

    @property
    def items(self) -> int:
        return len(self.item_offsets) - 1

    @property
    def boards(self) -> int:
        return len(self.board_offsets) - 1

    @property
    def edges(self) -> int:
        return len(self.item_boards)

    @cached_property
    def degree(self) -> Offsets:
        """Boards of each item, int64 [N]."""
        return np.diff(self.item_offsets)

    @cached_property
    def board_degree(self) -> Offsets:
        """Items of each board, int64 [B]."""
        return np.diff(self.board_offsets)

    @cached_property
    def is_weighted(self) -> bool:
        """Whether weights differ within the neighbours of any node: otherwise a uniform draw is right."""
        return _differ(self.item_offsets, self.item_weights) or _differ(self.board_offsets, self.board_weights)

    @classmethod
    def from_edges(
        cls, items: Nodes, boards: Nodes, weights: Weights | None = None, *, n_items: int, n_boards: int
    ) -> Self:
        """In memory, from edges int32 [E] in any order; weights of repeated edges add up.

        The slow twin of `components.graph.build`.
        """
        weights = np.ones(len(items), np.float32) if weights is None else weights
        code = items.astype(np.int64) * n_boards + boards
        distinct, inverse = np.unique(code, return_inverse=True)
        w = np.bincount(inverse, weights, minlength=len(distinct)).astype(np.float32)
        of_item, of_board = (
            (distinct // max(n_boards, 1)).astype(np.int32),
            (distinct % max(n_boards, 1)).astype(np.int32),
        )
        by_board = np.lexsort((of_item, of_board))
        return cls(
            offsets_of(of_item, n_items), of_board, w, offsets_of(of_board, n_boards), of_item[by_board], w[by_board]
        )


def offsets_of(nodes: Nodes, n: int) -> Offsets:
    """CSR offsets [n + 1] of edges sorted by node."""
    return np.concatenate([[0], np.cumsum(np.bincount(nodes, minlength=n))]).astype(np.int64)


def _differ(offsets: Offsets, weights: Weights) -> bool:
    changes = weights[1:] != weights[:-1]
    borders = offsets[1:-1]
    inside = np.ones(len(changes), bool)
    inside[borders[(borders > 0) & (borders < len(weights))] - 1] = False
    return bool((changes & inside).any())
