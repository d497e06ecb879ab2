"""Minibatch sub-graphs (Algorithm 2, lines 1 to 7): who is needed to compute some items' vectors, re-indexed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from components.models.pinsage.catalogue import Catalogue
from components.models.tensors import Tensors

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Subgraph(Tensors):
    """V nodes such that those needed by a later layer come first; node 0 is the unknown item and pads.

    Attributes:
        row_V: int32 rows of the item table; the first R are the roots.
        content_VF, category_VC: their description.
        neighbour_UT: int32 nodes; weight_UT float32. U nodes receive in the first layer.
        receivers: how many nodes receive in each layer: descending, the last is R.
    """

    row_V: Tensor
    content_VF: Tensor
    category_VC: Tensor
    neighbour_UT: Tensor
    weight_UT: Tensor
    receivers: tuple[int, ...]


@njit(cache=True, nogil=True)
def _expand(order: Ints, place: Ints, roots: int, neighbours: Ints, layers: int) -> NDArray[np.int64]:
    """Append to the roots in `order` their neighbours, then theirs. Sizes after 0 … `layers` hops."""
    sizes = np.empty(layers + 1, np.int64)
    sizes[0] = size = roots
    begin = 0
    for hop in range(layers):
        end = size
        for i in range(begin, end):
            for row in neighbours[order[i]]:
                if row == 0:
                    break
                if place[row] < 0:
                    place[row] = size
                    order[size] = row
                    size += 1
        begin = end
        sizes[hop + 1] = size
    return sizes


@njit(cache=True, nogil=True)
def _reindex(order: Ints, place: Ints, neighbours: Ints) -> Ints:
    """Neighbours of the nodes in `order`, as nodes."""
    result = np.zeros((len(order), neighbours.shape[1]), np.int32)
    for i in range(len(order)):
        for t, row in enumerate(neighbours[order[i]]):
            if row == 0:
                break
            result[i, t] = place[row]
    return result


class SubgraphBuilder:
    """Makes sub-graphs of one catalogue. Not for use by two threads at a time."""

    def __init__(self, catalogue: Catalogue, layers: int) -> None:
        self.catalogue, self.layers = catalogue, layers
        self._place = np.full(len(catalogue), -1, np.int32)
        self._order = np.empty(len(catalogue), np.int32)

    def build(self, items: Ints) -> tuple[Subgraph, Ints]:
        """The sub-graph that `items` need, and the node of each of them.

        Args:
            items: int32 [n] rows, repeated or not.
        """
        catalogue, place, order = self.catalogue, self._place, self._order
        roots = np.union1d(np.zeros(1, np.int32), items).astype(np.int32)
        order[: len(roots)] = roots
        place[roots] = np.arange(len(roots), dtype=np.int32)
        sizes = _expand(order, place, len(roots), catalogue.neighbours, self.layers)
        rows, receiving = order[: sizes[-1]].copy(), order[: sizes[-2]]
        neighbour = _reindex(receiving, place, catalogue.neighbours)
        nodes = place[items]
        place[rows] = -1
        graph = Subgraph(
            row_V=torch.from_numpy(rows),
            content_VF=torch.from_numpy(catalogue.content[rows]),
            category_VC=torch.from_numpy(catalogue.category[rows]),
            neighbour_UT=torch.from_numpy(neighbour),
            weight_UT=torch.from_numpy(catalogue.weights[receiving]),
            receivers=tuple(int(s) for s in sizes[-2::-1]),
        )
        return graph, nodes
