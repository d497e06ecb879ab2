"""The catalogue as PinSage reads it: content, neighbourhoods, number of boards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.errors import UserError
from components.graph.bipartite import BipartiteGraph
from components.graph.neighbours import Neighbourhoods
from components.history.items import ItemTable
from components.models.pinsage.config import PinSageConfig

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

LOG_DEGREE = 0.2
"""Scale of log(1 + boards), so that it does not drown the content vector, whose length is 1."""


@dataclass(frozen=True)
class Catalogue:
    """N items. Row 0 is the unknown item, without neighbours.

    Attributes:
        content: float32 [N, F]: the content vector and the scaled log of the number of boards.
        category: int32 [N, C] hashes, 0 = absent.
        neighbours: int32 [N, T] rows, heaviest first, 0 = padding at the end.
        weights: float32 [N, T], rows sum to 1; 0 in padding.
        degree: int64 [N] boards of each item.
        band: int32 [N, H] rows of a rank band of each item's walk (hard negatives), 0 = padding.
    """

    content: Floats
    category: Ints
    neighbours: Ints
    weights: Floats
    degree: NDArray[np.int64]
    band: Ints

    def __len__(self) -> int:
        return len(self.content)

    @classmethod
    def build(cls, items: ItemTable, degree: NDArray[np.int64], near: Neighbourhoods, band: Ints) -> Self:
        """Join the tables, which must speak of the same rows.

        Raises:
            UserError: they are of different catalogues.
        """
        if not len(items) == len(degree) == len(near) == len(band):
            raise UserError(
                f"the item table has {len(items)} rows, the graph {len(degree)}, the neighbourhoods {len(near)}",
                "run `pinloom step graph neighbourhoods` on these features",
            )
        content = _content(items.vectors, degree)
        return cls(content, items.categorical, near.rows, near.weights, degree, band)

    @classmethod
    def without_boards(cls, vectors: NDArray[np.float16], category: Ints) -> Self:
        """Items that no graph has.

        Args:
            vectors: fp16 [n, D] content vectors; category: int32 [n, C] hashes.
        """
        n = len(vectors)
        degree, none = np.zeros(n, np.int64), np.zeros((n + 1, 1), np.int32)
        # Row 0 of a catalogue is the unknown item.
        content = np.pad(_content(vectors, degree), ((1, 0), (0, 0)))
        category = np.pad(category, ((1, 0), (0, 0)))
        return cls(content, category, none, none.astype(np.float32), np.zeros(n + 1, np.int64), none)

    @classmethod
    def load(cls, files: Callable[[str], list[str]]) -> Self:
        """From the local files of the outputs `items`, `graph`, `neighbourhoods` and `band`."""
        named = {o: by_name(files(o)) for o in ("items", "graph", "neighbourhoods", "band")}
        return cls.build(
            ItemTable.load(named["items"]),
            BipartiteGraph.load(named["graph"]).degree,
            Neighbourhoods.load(named["neighbourhoods"]),
            np.load(named["band"]["band.npy"], mmap_mode="r"),
        )

    def as_read_by(self, config: PinSageConfig) -> Self:
        """With the neighbours that a model of `config` wants."""
        return self.nearest(config.neighbours, config.lift)

    def nearest(self, count: int, lift: float = 0.0) -> Self:
        """With the heaviest `count` neighbours, their weights made to sum to 1 again.

        Args:
            lift: weights are first divided by (the neighbour's boards)^lift, which may change who is heaviest.

        Raises:
            UserError: fewer were stored.
        """
        stored = self.neighbours.shape[1]
        if count > stored:
            raise UserError(
                f"the model wants {count} neighbours, the neighbourhoods hold {stored}",
                f"run `pinloom step neighbourhoods` with more, or train with `neighbours` ≤ {stored}",
            )
        rows, weights = self.neighbours, self.weights
        if lift:
            weights = weights / np.maximum(self.degree, 1)[rows].astype(np.float32) ** lift
            order = np.argsort(-weights, axis=1, kind="stable")[:, :count]
            rows, weights = np.take_along_axis(rows, order, axis=1), np.take_along_axis(weights, order, axis=1)
        weights = np.array(weights[:, :count])
        total = weights.sum(1, keepdims=True)
        weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        return replace(self, neighbours=np.ascontiguousarray(rows[:, :count]), weights=weights)


def _content(vectors: NDArray[np.float16], degree: NDArray[np.int64]) -> Floats:
    return np.concatenate([vectors, LOG_DEGREE * np.log1p(degree)[:, None]], axis=1).astype(np.float32)


def by_name(files: list[str]) -> dict[str, str]:
    """Local paths by file name."""
    return {Path(f).name: f for f in files}
