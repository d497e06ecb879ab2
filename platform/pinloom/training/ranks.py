"""What the workers say to one another. With one worker everything here is the identity."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from components.nn.hashed import own_weights
from components.recipe import Rank, Sums, unwrap

T = TypeVar("T")


def gather(value: T, rank: Rank) -> list[T]:
    """`value` of every rank, in their order, on every rank."""
    if rank.world == 1:
        return [value]
    values: list[T | None] = [None] * rank.world
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def agree(value: T, rank: Rank) -> T:
    """Rank 0's `value` on every rank."""
    if rank.world == 1:
        return value
    box: list[T] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def add_sums(into: dict[str, list[float]], sums: Sums) -> None:
    for name, (total, weight) in sums.items():
        entry = into.setdefault(name, [0.0, 0.0])
        entry[0] += total
        entry[1] += weight


def means(sums: dict[str, list[float]], rank: Rank) -> dict[str, float]:
    """sum / weight over all ranks; a metric that no rank weighed is left out.

    Added in the order of the ranks, so that every run and every rank gets the same bits.
    """
    total: dict[str, list[float]] = {}
    for part in gather(sums, rank):
        add_sums(total, {name: (s, w) for name, (s, w) in part.items()})
    return {name: s / w for name, (s, w) in total.items() if w > 0}


def share_buffers(model: nn.Module, rank: Rank) -> None:
    """Rank 0's buffers on every rank: each has its own running statistics, and rank 0's are the ones saved."""
    if rank.world == 1:
        return
    for buffer in model.buffers():
        dist.broadcast(buffer, src=0)


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the state dict on the CPU; tensors that shared memory no longer do."""
    return {name: _copy(t) for name, t in unwrap(model).state_dict().items()}


def own_weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Of `weights_of` those that each rank holds other rows of; none where nothing is sharded."""
    own = own_weights(unwrap(model))
    return {name: _copy(t) for name, t in unwrap(model).state_dict().items() if name in own}


def _copy(t: torch.Tensor) -> torch.Tensor:
    return t.detach().to("cpu", copy=True).contiguous()
