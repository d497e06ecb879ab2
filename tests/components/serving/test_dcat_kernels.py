"""The Triton kernels equal the CPU's crossing attention, in Triton's interpreter: no GPU is needed to be wrong."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.serving.dcat.attention import Seen, crossing_attention

pytest.importorskip("triton", reason="triton is not installed")

from components.serving.dcat import kernels

pytestmark = pytest.mark.skipif("TRITON_INTERPRET" not in os.environ, reason="there is a GPU: kernels are compiled")


@settings(max_examples=8, deadline=None)
@given(
    users=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 66), st.integers(0, 9)), min_size=1, max_size=3),
    tokens=st.integers(1, 3),
    every_query=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equal_the_cpus_in_outputs_and_gradients(users, tokens, every_query, seed):
    torch.manual_seed(seed)
    lengths, counts, hidden = zip(*users, strict=True)
    offsets = (0, *torch.tensor(counts).cumsum(0).tolist())
    seen = Seen(offsets, tuple(min(h, n) for h, n in zip(hidden, lengths, strict=True)), lengths)
    queries, total = tokens if every_query else 1, sum(counts)
    shapes = [(total, queries, 2, 16), *[(total, tokens, 2, 16)] * 2, *[(len(users), 2, max(lengths), 16)] * 2]
    given_ = [torch.randn(shape, requires_grad=True) for shape in shapes]
    towards, found = torch.randn(shapes[0]), []
    for attention in (kernels.TritonCrossing.apply, crossing_attention):
        out = attention(*given_, seen)
        found.append((out, *torch.autograd.grad(out, given_, towards)))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
