"""Batches: dataclasses whose tensors move together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor


class Tensors:
    """Base of a dataclass of tensors and of such dataclasses; other fields stay as they are."""

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        def changed(value: Any) -> Any:
            if isinstance(value, Tensors):
                return value._map(change)
            return change(value) if isinstance(value, Tensor) else value

        return type(self)(**{name: changed(value) for name, value in vars(self).items()})

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._map(lambda t: t.pin_memory())
