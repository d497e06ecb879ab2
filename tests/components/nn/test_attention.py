"""Encoder layers: equal to PyTorch's, and their shortcuts equal to the long way."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from components.nn.attention import EncoderLayer, fused_tokens


def layer(dim=12, heads=1, norm_first=False, dropout=0.0):
    torch.manual_seed(0)
    made = EncoderLayer(dim, heads, 16, dropout, norm_first)
    for p in made.parameters():
        nn.init.normal_(p, std=0.3)
    return made


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("norm_first", [False, True])
def test_equals_the_layer_of_pytorch_under_its_parameter_names(heads, norm_first):
    ours = layer(heads=heads, norm_first=norm_first)
    theirs = nn.TransformerEncoderLayer(12, heads, 16, 0.0, batch_first=True, norm_first=norm_first)
    theirs.load_state_dict(ours.state_dict())
    x, hidden = torch.randn(5, 7, 12), torch.rand(5, 7) < 0.4
    hidden[:, 0] = False
    torch.testing.assert_close(ours(x, hidden), theirs(x, src_key_padding_mask=hidden), rtol=1e-5, atol=1e-6)


def test_a_causal_mask_hides_later_keys():
    ours = layer().eval()
    x = torch.randn(3, 6, 12)
    later = torch.ones(6, 6, dtype=torch.bool).triu(1)[None]
    cut = ours(x[:, :4], later[:, :4, :4])
    torch.testing.assert_close(ours(x, later)[:, :4], cut)


def test_computing_the_first_queries_alone_changes_nothing():
    for norm_first in (False, True):
        ours = layer(norm_first=norm_first)
        x, hidden = torch.randn(4, 9, 12), torch.zeros(4, 9, dtype=torch.bool)
        torch.testing.assert_close(ours(x, hidden, queries=3), ours(x, hidden)[:, :3])


@settings(max_examples=30, deadline=None)
@given(
    requests=st.integers(1, 4),
    candidates=st.integers(1, 9),
    length=st.integers(1, 8),
    heads=st.sampled_from([1, 2, 3]),
    norm_first=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_projecting_the_shared_part_once_equals_projecting_every_token(
    requests, candidates, length, heads, norm_first, seed
):
    ours = layer(heads=heads, norm_first=norm_first)
    torch.manual_seed(seed)
    shared, constant = torch.randn(requests, length, 8), torch.randn(candidates, 4)
    row_of = torch.randint(requests, (candidates,))
    hidden = torch.rand(requests, length) < 0.5
    hidden[:, 0] = False
    slow = ours(fused_tokens(shared, constant, row_of), hidden[row_of])
    torch.testing.assert_close(ours.fused(shared, constant, hidden, row_of), slow, rtol=1e-4, atol=1e-5)


def test_the_shortcut_has_the_same_gradients():
    ours, shared, constant = layer(), torch.randn(2, 5, 8), torch.randn(6, 4)
    row_of, hidden = torch.tensor([0, 0, 0, 1, 1, 1]), torch.zeros(2, 5, dtype=torch.bool)
    gradients = []
    for fast in (True, False):
        ours.zero_grad()
        tokens = fused_tokens(shared, constant, row_of)
        out = ours.fused(shared, constant, hidden, row_of) if fast else ours(tokens, hidden[row_of])
        out.square().sum().backward()
        gradients.append([p.grad.clone() for p in ours.parameters()])
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)


def test_dropout_of_attention_leaves_both_ways_equal_in_expectation():
    ours = layer(dropout=0.3).train()
    ours.dropout.threshold = 0  # of the rest of the layer: its norms are not linear
    shared, constant = torch.randn(1, 4, 8), torch.randn(1, 4)
    row_of, hidden = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.bool)
    tokens = fused_tokens(shared, constant, row_of)
    with torch.no_grad():
        fast = torch.stack([ours.self_attn.fused(shared, constant, hidden, row_of) for _ in range(800)])
        slow = torch.stack([ours.self_attn(tokens, hidden) for _ in range(800)])
    torch.testing.assert_close(fast.mean(0), slow.mean(0), atol=0.1, rtol=0.05)
    torch.testing.assert_close(fast.std(0), slow.std(0), atol=0.1, rtol=0.1)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="not divisible"):
        EncoderLayer(10, 3, 8, 0.0)
