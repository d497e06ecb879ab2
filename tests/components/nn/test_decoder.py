"""The causal decoder: equal to its equations written out, blind to what comes later, alike in fp32 and bf16."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from components.nn.decoder import CausalDecoder, DecoderConfig
from components.nn.decoder_layer import BLOCKS
from components.nn.gpt2 import DENSE

POSITIONS = ["rotary", "learned", "none"]


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
        x = {"gpt2": gpt2_layer, "hstu": hstu_layer}[config.block](layer, x, config.heads, turned)
    return model.norm(x)


def gpt2_layer(layer, x, heads, turned):
    width = x.shape[1] // heads
    q, k, v = (t.unflatten(-1, (heads, width)) for t in layer.qkv(layer.norm1(x)).chunk(3, dim=-1))
    after = []
    for i in range(len(x)):
        mixed = []
        for h in range(heads):
            logits = [turned(q[i, h], i) @ turned(k[j, h], j) / math.sqrt(width) for j in range(i + 1)]
            mixed.append(torch.softmax(torch.stack(logits), 0) @ v[: i + 1, h])
        y = x[i] + layer.out(torch.cat(mixed))
        after.append(y + layer.down(nn.functional.gelu(layer.up(layer.norm2(y)))))
    return torch.stack(after)


def hstu_layer(layer, x, heads, turned):
    """Eqs. 1-3 of the paper, key by key."""
    width = x.shape[1] // heads
    u, *qkv = nn.functional.silu(layer.uqkv(layer.norm(x))).chunk(4, dim=-1)
    q, k, v = (t.unflatten(-1, (heads, width)) for t in qkv)
    after = []
    for i in range(len(x)):
        mixed = torch.zeros(heads, width)
        for h in range(heads):
            for j in range(i + 1):
                logit = turned(q[i, h], i) @ turned(k[j, h], j) / math.sqrt(width) + layer.bias[i - j]
                mixed[h] += logit * torch.sigmoid(logit) * v[j, h] / (i + 1)
        after.append(x[i] + layer.out(layer.mixed_norm(mixed.flatten()) * u[i]))
    return torch.stack(after)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("position", POSITIONS)
def test_equals_its_equations_token_by_token(position, block):
    model, x = decoder(position, block=block), torch.randn(3, 7, 16)
    expected = torch.stack([written_out(model, one) for one in x])
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    length=st.integers(1, 9),
    later=st.integers(1, 5),
    position=st.sampled_from(POSITIONS),
    block=st.sampled_from(BLOCKS),
)
def test_later_tokens_and_padding_change_nothing(length, later, position, block):
    model, x = decoder(position, block=block), torch.randn(2, length + later, 16)
    torch.testing.assert_close(model(x)[:, :length], model(x[:, :length]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
def test_states_of_padding_are_zero_where_lengths_are_given(position):
    model, x, length = decoder(position), torch.randn(3, 5, 16), torch.tensor([5, 0, 2])
    states, free = model(x, length), model(x)
    for u, n in enumerate(length.tolist()):
        assert torch.equal(states[u, :n], free[u, :n])
        assert not states[u, n:].any()


@pytest.mark.parametrize("block", BLOCKS)
def test_rotary_attention_sees_distances_not_places(block):
    model = decoder(block=block)
    x, layer = torch.randn(1, 6, 16), model.layers[0]
    here, there = (layer(x, model.rotation(torch.arange(6) + start)) for start in (0, 40))
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("position", POSITIONS)
def test_in_bf16_it_is_the_same_up_to_rounding(position, block):
    model, x = decoder(position, block=block), torch.randn(2, 30, 16)
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


def test_hstu_without_rotation_knows_order_by_its_bias_alone():
    model, x = decoder("none", block="hstu", layers=1), torch.randn(1, 6, 16)
    turned = x[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(model(x)[:, 5], model(turned)[:, 5], atol=1e-3)
    nn.init.ones_(model.layers[0].bias)
    torch.testing.assert_close(model(x)[:, 5], model(turned)[:, 5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_layer_that_begins_by_copying_adds_the_mean_of_what_it_has_seen_or_its_direction(block):
    torch.manual_seed(0)
    model = CausalDecoder(replace(DecoderConfig.debug(), dim=64, block=block, position="none"))
    layer = model.layers[0]
    layer.begin_by_copying(3.0)
    x = torch.randn(1, 20, 64)
    added = (layer(x, None) - x)[0, -1].detach()
    mean = nn.functional.layer_norm(x, (64,))[0].mean(0)
    assert torch.cosine_similarity(added, mean, dim=0) > 0.85
    length = mean.norm() if block == "gpt2" else torch.tensor(64.0).sqrt()
    assert float(added.norm()) == pytest.approx(3 * float(length), rel=0.15)


@pytest.mark.parametrize("wrong", [{"position": "absolute"}, {"block": "lstm"}, {"heads": 3}, {"dim": 6, "heads": 2}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError):
        DecoderConfig(**wrong)
