"""Random walks with restart from every item, on all cores: the most visited items and a band of further ranks.

A hop goes from an item over one of its boards to one of the board's items, both drawn by edge weight. Before every hop
but the first a walk restarts at its item with probability `restart`. Visits of other items are counted; as walks grow,
the normalised counts tend to Personalised PageRank (PinSage, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from components.errors import UserError
from components.graph import draws
from components.graph.alias import tables_of
from components.graph.bipartite import BipartiteGraph, Nodes
from components.graph.kernels import walk_all
from components.graph.neighbours import Neighbourhoods


@dataclass(frozen=True)
class WalkConfig:
    """
    Attributes:
        top: T, neighbours kept.
        walks: walks per item.
        length: hops per walk, restarts included.
        restart: probability of a restart before a hop.
        early_stop: an item's walks end when `top` items have this many visits (Pixie); None = never.
        seed: of all draws.
        band: ranks [first × R, last × R) of the R items reached, never before rank T, from which hard negatives come.
        band_size: H, items of the band that are kept, evenly spread over its ranks.
    """

    top: int = 50
    walks: int = 128
    length: int = 16
    restart: float = 0.5
    early_stop: int | None = None
    seed: int = 0
    band: tuple[float, float] = (0.25, 0.75)
    band_size: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "band", tuple(self.band))
        if min(self.top, self.walks, self.length) < 1 or self.walks * self.length >= 2**31:
            raise UserError(
                f"top={self.top}, walks={self.walks}, length={self.length} cannot be walked",
                "all are at least 1, and walks x length is below 2^31",
            )
        if not 0 <= self.restart < 1:
            raise UserError(f"restart={self.restart} is not a probability below 1", "Pixie uses 0.5")
        if not 0 <= self.band[0] <= self.band[1] <= 1:
            raise UserError(f"band={self.band} is not a range of ranks", "give two shares, such as 0.25 and 0.75")

    @classmethod
    def debug(cls) -> WalkConfig:
        return cls(top=5, walks=16, length=4, band_size=4)


@dataclass(frozen=True)
class Walked:
    """
    Attributes:
        neighbourhoods: of the items walked from, [n, T].
        band: int32 [n, H], items of the band by rank, 0 = padding.
        reached: int32 [n], R: how many items were visited at all.
        hops: int32 [n], hops made.
    """

    neighbourhoods: Neighbourhoods
    band: Nodes
    reached: Nodes
    hops: Nodes


class Walker:
    """Walks over one graph; alias tables are built once.

    Args:
        graph: arrays may be memory-mapped.
        threads: at most; None = all cores. The result never depends on it.
    """

    def __init__(self, graph: BipartiteGraph, config: WalkConfig, threads: int | None = None) -> None:
        self.graph, self.config = graph, config
        cores = numba.config.NUMBA_NUM_THREADS
        self.threads = min(threads or cores, cores)
        tables = tables_of(graph)
        self._of_items, self._of_boards = ((t.keep, t.other) if len(t.keep) else (None, None) for t in tables)

    def walk(self, items: Nodes | None = None) -> Walked:
        """Walk from `items` int32 [n] (default: every row of the item table)."""
        graph, config = self.graph, self.config
        starts = np.arange(graph.items, dtype=np.int32) if items is None else np.asarray(items, np.int32)
        n = len(starts)
        rows, weights = np.zeros((n, config.top), np.int32), np.zeros((n, config.top), np.float32)
        band = np.zeros((n, config.band_size), np.int32)
        reached, hops = np.zeros(n, np.int32), np.zeros(n, np.int32)
        before = numba.get_num_threads()
        numba.set_num_threads(self.threads)
        try:
            walk_all(
                starts,
                (graph.item_offsets, graph.item_boards, *self._of_items),
                (graph.board_offsets, graph.board_items, *self._of_boards),
                np.uint64(draws.key_of(config.seed)),
                (config.walks, config.length, np.uint64(draws.share(config.restart)), config.early_stop or 0),
                config.band,
                (rows, weights, band, reached, hops),
            )
        finally:
            numba.set_num_threads(before)
        return Walked(Neighbourhoods(rows, weights), band, reached, hops)


def band_ranks(config: WalkConfig, reached: int) -> tuple[int, int]:
    """Ranks [first, last) of the band of an item that reached so many others."""
    first = max(config.top, int(np.ceil(config.band[0] * reached)))
    return first, max(first, int(np.ceil(config.band[1] * reached)))
