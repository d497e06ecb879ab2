"""Batches: dataclasses whose tensors move together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor

ALIGNMENT = 16
"""Bytes; of every tensor within a buffer."""


class Tensors:
    """Base of a dataclass of tensors and of such dataclasses; other fields stay as they are.

    Going to another device, all tensors are one buffer and one copy, as TransAct is served: many small copies are
    mostly overhead. On the CPU nothing is copied.
    """

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        def changed(value: Any) -> Any:
            if isinstance(value, Tensors):
                return value._map(change)
            return change(value) if isinstance(value, Tensor) else value

        return type(self)(**{name: changed(value) for name, value in vars(self).items()})

    def _tensors(self) -> Iterator[Tensor]:
        for value in vars(self).values():
            if isinstance(value, Tensors):
                yield from value._tensors()
            elif isinstance(value, Tensor):
                yield value

    def packed(self, *, pin: bool = False) -> Self:
        """With all tensors in one buffer; if `pin`, in memory that a GPU can copy from while the CPU goes on."""
        sizes = [_aligned(t) for t in self._tensors()]
        parts = iter(torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pin).split(sizes))
        return self._map(lambda t: _seen_as(t, next(parts)[: t.nbytes]).copy_(t))

    def pin_memory(self) -> Self:
        return self.packed(pin=True)

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        tensors = list(self._tensors())
        if all(t.device == device for t in tensors):
            return self
        if any(t.device.type != "cpu" for t in tensors):
            return self._map(lambda t: t.to(device, non_blocking=non_blocking))
        if not _is_one_buffer(tensors):
            return self.packed().to(device, non_blocking)
        host = torch.empty(0, dtype=torch.uint8).set_(tensors[0].untyped_storage())
        there = host.to(device, non_blocking=non_blocking)

        def moved(t: Tensor) -> Tensor:
            begin = t.storage_offset() * t.element_size()
            return _seen_as(t, there[begin : begin + t.nbytes])

        return self._map(moved)


def _aligned(t: Tensor) -> int:
    return -(-t.nbytes // ALIGNMENT) * ALIGNMENT


def _seen_as(t: Tensor, part: Tensor) -> Tensor:
    """Bytes as a tensor of the type and shape of `t`."""
    return part.view(t.dtype).view(t.shape)


def _is_one_buffer(tensors: list[Tensor]) -> bool:
    """Whether they share a storage that holds nothing else."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    alone = len(storages) == 1 and max(storages.values()) <= sum(map(_aligned, tensors))
    return alone and all(t.is_contiguous() for t in tensors)
