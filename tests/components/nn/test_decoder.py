"""The causal decoder: equal to its equations written out, blind to what comes later, alike in fp32 and bf16."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from components.nn.decoder import DENSE, CausalDecoder, DecoderConfig

POSITIONS = ["rotary", "learned"]


def decoder(position="rotary", **changes):
    torch.manual_seed(0)
    made = CausalDecoder(replace(DecoderConfig.debug(), position=position, **changes))
    for p in made.parameters():
        nn.init.normal_(p, std=0.3)
    return made.eval()


def written_out(model, x_LD):
    """One sequence, token by token and head by head, positions as complex rotations."""
    config = model.config
    width = config.dim // config.heads
    x = x_LD if model.position is None else x_LD + model.position.weight[: len(x_LD)]
    rate = 10_000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))

    def turned(t, place):
        if config.position != "rotary":
            return t
        pairs = torch.complex(t[: width // 2].double(), t[width // 2 :].double()) * torch.exp(1j * place * rate)
        return torch.cat([pairs.real, pairs.imag]).float()

    for layer in model.layers:
        q, k, v = (t.unflatten(-1, (config.heads, width)) for t in layer.qkv(layer.norm1(x)).chunk(3, dim=-1))
        after = []
        for i in range(len(x)):
            heads = []
            for h in range(config.heads):
                mine = turned(q[i, h], i)
                logits = [mine @ turned(k[j, h], j) / math.sqrt(width) for j in range(i + 1)]
                heads.append(torch.softmax(torch.stack(logits), 0) @ v[: i + 1, h])
            y = x[i] + layer.out(torch.cat(heads))
            after.append(y + layer.down(nn.functional.gelu(layer.up(layer.norm2(y)))))
        x = torch.stack(after)
    return model.norm(x)


@pytest.mark.parametrize("position", POSITIONS)
def test_equals_its_equations_token_by_token(position):
    model, x = decoder(position), torch.randn(3, 7, 16)
    expected = torch.stack([written_out(model, one) for one in x])
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 9), later=st.integers(1, 5), position=st.sampled_from(POSITIONS))
def test_later_tokens_and_padding_change_nothing(length, later, position):
    model, x = decoder(position), torch.randn(2, length + later, 16)
    torch.testing.assert_close(model(x)[:, :length], model(x[:, :length]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
def test_states_of_padding_are_zero_where_lengths_are_given(position):
    model, x, length = decoder(position), torch.randn(3, 5, 16), torch.tensor([5, 0, 2])
    states, free = model(x, length), model(x)
    for u, n in enumerate(length.tolist()):
        assert torch.equal(states[u, :n], free[u, :n])
        assert not states[u, n:].any()


def test_rotary_attention_sees_distances_not_places():
    model = decoder()
    x, layer = torch.randn(1, 6, 16), model.layers[0]
    here, there = (layer(x, model.rotation(torch.arange(6) + start)) for start in (0, 40))
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
def test_in_bf16_it_is_the_same_up_to_rounding(position):
    model, x = decoder(position), torch.randn(2, 30, 16)
    expected = model(x)
    found = model.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize(("dim", "length"), [(16, 20), (128, 200), (16, DENSE + 3)])
def test_without_gradients_it_is_the_same(dim, length):
    model = decoder(dim=dim, layers=1, max_length=length)
    x = torch.randn(2, length, dim)
    with torch.no_grad():
        found = model(x)
    torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-4)


def test_dropout_works_in_training_alone():
    model, x = decoder(dropout=0.5), torch.randn(2, 5, 16)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize("wrong", [{"position": "none"}, {"heads": 3}, {"dim": 6, "heads": 2}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError):
        DecoderConfig(**wrong)
