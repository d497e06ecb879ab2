"""The graph from a stream of edges, in memory bounded by a part of them.

Three passes, each over the parts of an external bucket sort: by board (repeats, mixed boards, numbering), by item
(over-popular items, CSR of items), by board again (CSR of boards).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.graph.arrays import GrowingArray
from components.graph.bipartite import Nodes, Offsets, Weights
from components.graph.spill import Spill, parts_for
from components.history.keys import mix

RAW = np.dtype([("board", np.int64), ("item", np.int32), ("weight", np.float32)])
NUMBERED = np.dtype([("item", np.int32), ("board", np.int32), ("weight", np.float32), ("topical", np.float32)])
KEPT = np.dtype([("board", np.int32), ("item", np.int32), ("weight", np.float32)])


@dataclass(frozen=True)
class Pruning:
    """Which edges of a stream enter the graph.

    Attributes:
        repeats: weight of an edge that comes more than once: the sum, or the largest.
        min_board_items, max_board_items: boards of another size go. A board of one item leads nowhere.
        max_board_entropy: boards whose items' categories have more entropy (bits) go; None = none.
        max_item_boards: edges that an item keeps at most; None = all.
        degree_power: an item with d edges keeps ⌈d^power⌉ of them (Pixie's pruning factor); 1 = all.
        prune_by: which edges an over-popular item keeps: those to boards in which its category is most frequent, or
            a sample by hash.
    """

    repeats: Literal["add", "largest"] = "add"
    min_board_items: int = 2
    max_board_items: int | None = None
    max_board_entropy: float | None = None
    max_item_boards: int | None = None
    degree_power: float = 1.0
    prune_by: Literal["topic", "sample"] = "topic"


@dataclass
class Counts:
    """What came in and what went."""

    edges_read: int = 0
    edges_repeated: int = 0
    boards_of_wrong_size: int = 0
    boards_mixed: int = 0
    edges_of_pruned_boards: int = 0
    edges_of_popular_items: int = 0
    boards: int = 0
    edges: int = 0
    items_with_edges: int = 0


class GraphBuilder:
    """Takes edges in any order; `finish` writes the files of a `BipartiteGraph`.

    Args:
        folder: of the result; the passes' files lie below it and go.
        category: int32 [N], a number for each item's category, 0 = unknown.
        expected: about how many edges will come: fixes the number of parts.
    """

    def __init__(self, folder: Path, category: NDArray[np.int32], expected: int, pruning: Pruning) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.category, self.pruning = folder, category, pruning
        self.parts = parts_for(expected)
        self.counts = Counts()
        self._raw = Spill(folder / "raw", RAW, self.parts)

    def add(self, items: Nodes, boards: NDArray[np.int64], weights: Weights) -> None:
        """Edges [n]; a board is named by a 63-bit key, which also orders the boards. Items 0 are left out."""
        known = items > 0
        items, boards, weights = items[known], boards[known], weights[known]
        self.counts.edges_read += len(items)
        # In floating point: the key times the number of parts would overflow. Any monotonous map will do.
        part = np.minimum((boards * (self.parts / 2**63)).astype(np.int64), self.parts - 1)
        self._raw.append(part, {"board": boards, "item": items, "weight": weights})

    def finish(self) -> Counts:
        numbered = Spill(self.folder / "numbered", NUMBERED, self.parts)
        for part in range(self.parts):
            self._number_boards(self._raw.take(part), numbered)
        kept = Spill(self.folder / "kept", KEPT, self.parts)
        self._write("item", numbered, len(self.category), kept)
        self._write("board", kept, self.counts.boards, None)
        for spill in (self._raw, numbered, kept):
            spill.folder.rmdir()
        return self.counts

    # -- pass 1 --------------------------------------------------------------------------------------

    def _number_boards(self, edges: NDArray[Any], out: Spill) -> None:
        edges = self._without_repeats(edges)
        if not len(edges):
            return
        size = _run_lengths(edges["board"])
        board = np.repeat(np.arange(len(size)), size)
        share, entropy = _topics(board, self.category[edges["item"]])
        keep = self._boards_to_keep(size, entropy)
        number = (np.cumsum(keep) - 1 + self.counts.boards)[board]
        kept = keep[board]
        self.counts.boards += int(keep.sum())
        self.counts.edges_of_pruned_boards += int(len(kept) - kept.sum())
        items = edges["item"][kept]
        columns = {"item": items, "board": number[kept], "weight": edges["weight"][kept], "topical": share[kept]}
        out.append(_part(items, len(self.category), self.parts), columns)

    def _without_repeats(self, edges: NDArray[Any]) -> NDArray[Any]:
        """Sorted by (board, item); by weight too, so that sums do not depend on the order of arrival."""
        edges = edges[np.lexsort((edges["weight"], edges["item"], edges["board"]))]
        first = np.ones(len(edges), bool)
        first[1:] = (edges["board"][1:] != edges["board"][:-1]) | (edges["item"][1:] != edges["item"][:-1])
        self.counts.edges_repeated += int(len(edges) - first.sum())
        if first.all():
            return edges
        combine = np.add if self.pruning.repeats == "add" else np.maximum
        weights = combine.reduceat(edges["weight"], np.flatnonzero(first))
        edges = edges[first]
        edges["weight"] = weights
        return edges

    def _boards_to_keep(self, size: Offsets, entropy: NDArray[np.float64]) -> NDArray[np.bool_]:
        rules = self.pruning
        fits = size >= rules.min_board_items
        if rules.max_board_items is not None:
            fits &= size <= rules.max_board_items
        pure = np.ones(len(size), bool) if rules.max_board_entropy is None else entropy <= rules.max_board_entropy
        self.counts.boards_of_wrong_size += int((~fits).sum())
        self.counts.boards_mixed += int((fits & ~pure).sum())
        return fits & pure

    # -- passes 2 and 3 ------------------------------------------------------------------------------

    def _write(self, side: Literal["item", "board"], spill: Spill, n: int, out: Spill | None) -> None:
        """CSR files of one side; from the items' side the edges that stay go on to `out`."""
        other = "board" if side == "item" else "item"
        nodes = GrowingArray(self.folder / f"{side}_{other}s.npy", np.int32)
        weights = GrowingArray(self.folder / f"{side}_weights.npy", np.float32)
        degree = np.zeros(n, np.int64)
        for part in range(self.parts):
            edges = spill.take(part)
            if side == "item":
                edges = self._less_popular(edges)
            edges = edges[np.lexsort((edges[other], edges[side]))]
            nodes.append(edges[other])
            weights.append(edges["weight"])
            if len(edges):  # a part is a range of nodes
                first, last = int(edges[side][0]), int(edges[side][-1])
                degree[first : last + 1] += np.bincount(edges[side] - first)
            if out is not None:
                columns = {name: edges[name] for name in ("board", "item", "weight")}
                out.append(_part(edges["board"], self.counts.boards, self.parts), columns)
        nodes.close()
        weights.close()
        np.save(self.folder / f"{side}_offsets.npy", np.concatenate([[0], np.cumsum(degree)]).astype(np.int64))
        self.counts.edges = nodes.length
        if side == "item":
            self.counts.items_with_edges = int((degree > 0).sum())

    def _less_popular(self, edges: NDArray[Any]) -> NDArray[Any]:
        rules = self.pruning
        if not len(edges) or (rules.max_item_boards is None and rules.degree_power == 1):
            return edges
        chance = mix((edges["item"].astype(np.int64) << 32) | edges["board"])
        topical = edges["topical"] if rules.prune_by == "topic" else np.zeros(len(edges), np.float32)
        edges = edges[np.lexsort((chance, -topical, edges["item"]))]
        degree = _run_lengths(edges["item"])
        most = np.ceil(degree**rules.degree_power)
        if rules.max_item_boards is not None:
            most = np.minimum(most, rules.max_item_boards)
        rank = np.arange(len(edges)) - np.repeat(np.cumsum(degree) - degree, degree)
        kept = edges[rank < np.repeat(most, degree)]
        self.counts.edges_of_popular_items += len(edges) - len(kept)
        return kept


def _part(nodes: Nodes, n: int, parts: int) -> NDArray[np.int64]:
    """Part of each node: ranges of about equal length, in the order of the nodes."""
    return nodes.astype(np.int64) * parts // max(n, 1)


def _run_lengths(values: NDArray[Any]) -> Offsets:
    """Lengths of runs of equal values, [n] → [runs]."""
    borders = np.flatnonzero(values[1:] != values[:-1]) + 1
    return np.diff(np.concatenate([[0], borders, [len(values)]]))


def _topics(board: Offsets, category: NDArray[np.int32]) -> tuple[Weights, NDArray[np.float64]]:
    """Of each edge the share of its item's category in its board, [n]; of each board the entropy in bits, [boards].

    Items without a category count for neither.
    """
    boards = int(board[-1]) + 1
    known = category > 0
    labelled = np.bincount(board[known], minlength=boards)
    distinct, inverse, counts = np.unique(
        (board[known] << 32) | category[known], return_inverse=True, return_counts=True
    )
    p = counts / labelled[distinct >> 32]
    share = np.zeros(len(board), np.float32)
    share[known] = p[inverse]
    entropy = np.bincount(distinct >> 32, -p * np.log2(p), minlength=boards)
    return share, entropy.astype(np.float64)
