"""What belongs together moves together."""

from dataclasses import dataclass

import torch
from torch import Tensor

from components.models.tensors import Tensors


@dataclass(frozen=True)
class Part(Tensors):
    inner: Tensor
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Whole(Tensors):
    outer: Tensor
    part: Part


def test_every_tensor_moves_and_nothing_else_changes():
    whole = Whole(torch.ones(2), Part(torch.zeros(3), (3, 1)))
    moved = whole.to(torch.device("meta"))
    assert type(moved) is Whole
    assert type(moved.part) is Part
    assert (moved.outer.device.type, moved.part.inner.device.type) == ("meta", "meta")
    assert (moved.outer.shape, moved.part.inner.shape, moved.part.sizes) == ((2,), (3,), (3, 1))
    assert whole.outer.device.type == "cpu"
