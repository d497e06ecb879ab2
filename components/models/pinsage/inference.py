"""Vectors of all items, layer by layer: each item is projected and convolved once per layer (section 3.5).

The paper's MapReduce over shards of the catalogue. `project` is the map; `convolve` joins an item with its neighbours'
messages and reduces. A shard that was written is not computed again, and one shard with its neighbours is all that is
in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.models.pinsage.catalogue import Catalogue
from components.models.pinsage.model import PinSage

Array = NDArray[Any]
Phase = tuple[str, int]
"""'message' or 'state', and the layer."""


class Shards(Protocol):
    """Where arrays live between the phases."""

    def has(self, name: str) -> bool: ...

    def put(self, name: str, array: Array) -> None:
        """Keep it: all of it or nothing."""
        ...

    def get(self, name: str) -> Array:
        """Best memory-mapped: a few rows of each shard are read."""
        ...


class MemoryShards:
    """In this process."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def has(self, name: str) -> bool:
        return name in self._arrays

    def put(self, name: str, array: Array) -> None:
        self._arrays[name] = array

    def get(self, name: str) -> Array:
        return self._arrays[name]


@dataclass(frozen=True)
class Inference:
    """One catalogue through one model, in shards of `size` items.

    Attributes:
        catalogue: with as many neighbours as the model wants (`Catalogue.nearest`).
    """

    model: PinSage
    catalogue: Catalogue
    shards: Shards
    size: int = 65_536

    @property
    def count(self) -> int:
        return -(-len(self.catalogue) // self.size)

    @property
    def phases(self) -> list[Phase]:
        """In order; within a phase, shards are independent."""
        return [(kind, k) for k in range(len(self.model.convolutions)) for kind in ("message", "state")]

    @torch.no_grad()
    def work(self, phase: Phase, shard: int) -> None:
        """One shard of one phase, unless it is there already. The last layer's states are the vectors."""
        kind, layer = phase
        if self.shards.has(_name(phase, shard)):
            return
        rows = slice(shard * self.size, min((shard + 1) * self.size, len(self.catalogue)))
        result = self._project(layer, shard, rows) if kind == "message" else self._convolve(layer, shard, rows)
        self.shards.put(_name(phase, shard), result.float().cpu().numpy())

    def vectors(self) -> Iterator[NDArray[np.float32]]:
        """Final vectors, shard by shard: [≤ size, d]; row 0 of the catalogue is zero."""
        for shard in range(self.count):
            yield self.shards.get(_name(("state", len(self.model.convolutions) - 1), shard))

    def _project(self, layer: int, shard: int, rows: slice) -> Tensor:
        return self.model.convolutions[layer].project(self._state(layer, shard, rows))

    def _convolve(self, layer: int, shard: int, rows: slice) -> Tensor:
        neighbours = self.catalogue.neighbours[rows]
        needed = np.union1d(neighbours, np.zeros(1, np.int32))
        local = np.searchsorted(needed, neighbours).astype(np.int32)
        messages = self._tensor(self._gather(layer, needed))
        weights = self._tensor(self.catalogue.weights[rows])
        state = self.model.convolutions[layer](self._state(layer, shard, rows), messages, self._tensor(local), weights)
        if layer + 1 < len(self.model.convolutions):
            return state
        final = self.model.finish(state)
        if rows.start == 0:
            final[0] = 0
        return final

    def _state(self, layer: int, shard: int, rows: slice) -> Tensor:
        """What the layer receives of a shard's own items."""
        if layer > 0:
            return self._tensor(self.shards.get(_name(("state", layer - 1), shard)))
        row = np.arange(rows.start, rows.stop, dtype=np.int32)
        catalogue = self.catalogue
        return self.model.describe(
            self._tensor(catalogue.content[rows]), self._tensor(catalogue.category[rows]), self._tensor(row)
        )

    def _gather(self, layer: int, rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Messages of some items, in order, from all shards."""
        cuts = np.searchsorted(rows, np.arange(self.count + 1) * self.size)
        parts = [
            self.shards.get(_name(("message", layer), s))[rows[a:b] - s * self.size]
            for s, (a, b) in enumerate(pairwise(cuts))
            if a < b
        ]
        return np.concatenate(parts)

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self.model.device)


def _name(phase: Phase, shard: int) -> str:
    return f"{phase[0]}-{phase[1]}-{shard:05d}"


def embed(model: PinSage, catalogue: Catalogue, size: int = 65_536) -> NDArray[np.float32]:
    """Vectors of all items in this process. [N, d]; zero in row 0."""
    run = Inference(model, catalogue, MemoryShards(), size)
    for phase in run.phases:
        for shard in range(run.count):
            run.work(phase, shard)
    return np.concatenate(list(run.vectors()))
