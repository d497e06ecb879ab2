"""The neighbourhood of every item: what random walks from it visit most, and how much."""

from __future__ import annotations

from dataclasses import dataclass

from components.graph.arrays import ArrayFiles
from components.graph.bipartite import Nodes, Weights


@dataclass(frozen=True)
class Neighbourhoods(ArrayFiles):
    """Importance-based neighbourhoods (PinSage, section 3.1).

    Attributes:
        rows: int32 [N, T], most visited first, ties by row; 0 = padding. An item is never its own neighbour.
        weights: float32 [N, T], visit counts over the sum of the row's; 0 in padding.
    """

    rows: Nodes
    weights: Weights

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def top(self) -> int:
        """T."""
        return int(self.rows.shape[1])
