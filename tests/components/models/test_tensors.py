"""What belongs together moves together."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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


DEVICES = ["meta", *(f"cuda:{i}" for i in range(min(1, torch.cuda.device_count())))]
TYPES = [torch.float32, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool]
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def wholes(draw) -> Whole:
    """Of any types and shapes, empty and transposed ones too."""
    outer, inner = (torch.randint(0, 2, draw(SHAPES)).to(draw(st.sampled_from(TYPES))) for _ in range(2))
    return Whole(outer.T if outer.ndim == 2 else outer, Part(inner, (1,)))


def storages(whole: Whole) -> int:
    return len({t.untyped_storage()._cdata for t in (whole.outer, whole.part.inner)})


@given(wholes())
@settings(max_examples=80, deadline=None)
def test_one_buffer_holds_the_same_tensors(whole):
    packed = whole.packed()
    assert storages(packed) == 1
    for ours, theirs in ((packed.outer, whole.outer), (packed.part.inner, whole.part.inner)):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
@given(whole=wholes(), ahead=st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_moves_is_one_copy(device, whole, ahead):
    moved = (whole.packed() if ahead else whole).to(torch.device(device))
    assert storages(moved) == 1
    for ours, theirs in ((moved.outer, whole.outer), (moved.part.inner, whole.part.inner)):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert device == "meta" or torch.equal(ours.cpu(), theirs)


def test_a_part_of_a_large_array_moves_without_the_rest():
    large = torch.arange(1000.0)
    moved = Whole(large[:2], Part(large[4:6], ())).to(torch.device("meta"))
    assert moved.outer.untyped_storage().nbytes() <= 64


def test_on_the_cpu_nothing_is_copied():
    whole = Whole(torch.ones(2), Part(torch.zeros(3), ()))
    assert whole.to(torch.device("cpu")) is whole
