"""DCAT equals the full causal run of every candidate, in outputs and gradients, whatever the histories are."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from components.nn import linear
from components.nn.decoder import CausalDecoder, DecoderConfig
from components.nn.decoder_layer import BLOCKS
from components.serving.dcat import Context, cross, encode_context, full_run

POSITIONS = ["rotary", "learned", "none"]


def decoder(position="rotary", layers=2, dtype=torch.float32, **changes):
    torch.manual_seed(0)
    made = CausalDecoder(replace(DecoderConfig.debug(), position=position, layers=layers, **changes))
    for p in made.parameters():
        nn.init.normal_(p, std=0.15)
    return made.eval().to(dtype)


def inputs(lengths, counts, tokens, seed=0, dim=16):
    """Histories, their lengths, candidates, and the user of each."""
    torch.manual_seed(seed)
    x = torch.randn(len(lengths), max(lengths), dim)
    row_of = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return x, torch.tensor(lengths), torch.randn(sum(counts), tokens, dim), row_of


def gradients(model, outputs, of):
    torch.manual_seed(1)
    return torch.autograd.grad((outputs * torch.randn_like(outputs)).sum(), of, materialize_grads=True)


cases = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(
    users=cases.filter(lambda users: sum(count for _, count in users) > 0),
    tokens=st.integers(1, 3),
    slots=st.one_of(st.none(), st.integers(3, 12)),
    layers=st.integers(1, 3),
    position=st.sampled_from(POSITIONS),
    block=st.sampled_from(BLOCKS),
    by_head=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_full_causal_run_in_outputs_and_gradients(
    users, tokens, slots, layers, position, block, by_head, seed
):
    lengths, counts = (list(column) for column in zip(*users, strict=True))
    model = decoder(position, layers, block=block)
    x, length, candidates, row_of = inputs(lengths, counts, tokens, seed)
    wanted = [x.requires_grad_(), candidates.requires_grad_(), *model.parameters()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "SMALLEST", 1 if by_head else 2**60)
        found = cross(model, encode_context(model, x, length), candidates, row_of, slots=slots)
        mine = gradients(model, found, wanted)
    expected = full_run(model, x, length, candidates, row_of, slots=slots)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(mine, gradients(model, expected, wanted), strict=True):
        largest = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * max(1.0, largest))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("position", POSITIONS)
def test_leaving_out_the_last_layer_of_the_context_changes_nothing(position, block):
    model = decoder(position, block=block)
    x, length, candidates, row_of = inputs([5, 0, 7], [3, 2, 4], 2)
    whole, short = (encode_context(model, x, length, states=states) for states in (True, False))
    torch.testing.assert_close(cross(model, whole, candidates, row_of), cross(model, short, candidates, row_of))
    for u, n in enumerate(length.tolist()):
        torch.testing.assert_close(whole.state_ULD[u, :n], model(x)[u, :n], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_rotation_that_displaces_nothing_is_no_rotation(position):
    model = decoder(position)
    x, length, candidates, row_of = inputs([5, 4], [3, 2], 2)
    context = encode_context(model, x, length)
    exact, wide, narrow = (cross(model, context, candidates, row_of, slots=slots) for slots in (None, 7, 6))
    assert torch.equal(exact, wide)
    torch.testing.assert_close(exact[3:], narrow[3:])
    assert not torch.allclose(exact[:3], narrow[:3], atol=1e-3)


@pytest.mark.parametrize("block", BLOCKS)
def test_without_gradients_and_by_head_it_is_the_same_again(block):
    model = decoder(dim=64, heads=4, ffn=128, block=block)
    x, length, candidates, row_of = inputs([40, 56], [300, 5], 1, dim=64)
    expected = full_run(model, x, length, candidates, row_of)
    with torch.inference_mode():
        found = cross(model, encode_context(model, x, length), candidates, row_of)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_in_bf16_it_ranks_as_in_fp32(block):
    model = decoder(dim=64, heads=4, ffn=128, block=block)
    x, length, candidates, row_of = inputs([40], [300], 1, dim=64)
    with torch.inference_mode():
        exact = cross(model, encode_context(model, x, length), candidates, row_of)
        half = model.to(torch.bfloat16)
        found = cross(half, encode_context(half, x.bfloat16(), length), candidates.bfloat16(), row_of)
    assert found.dtype == torch.bfloat16
    scores = torch.stack([exact @ exact[0], found.float() @ exact[0]])
    assert torch.corrcoef(scores.argsort().argsort().float())[0, 1] > 0.999


@pytest.mark.parametrize("block", BLOCKS)
def test_under_autocast_it_trains_and_is_the_full_run_up_to_rounding(block):
    model = decoder(block=block)
    x, length, candidates, row_of = inputs([6, 9], [3, 4], 2)
    found = []
    for run in (
        lambda: cross(model, encode_context(model, x, length), candidates, row_of),
        lambda: full_run(model, x, length, candidates, row_of),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = run()
        found.append((states.detach(), *gradients(model, states, list(model.parameters()))))
    for mine, other in zip(*found, strict=True):
        assert (mine.float() - other.float()).norm() <= 0.05 * max(1.0, float(other.float().norm()))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        again = cross(model, encode_context(model, x, length), candidates, row_of)
    assert (again.float() - found[0][0].float()).norm() <= 0.05 * found[0][0].float().norm()


@pytest.mark.parametrize("block", BLOCKS)
def test_users_contexts_joined_from_several_requests_serve_as_one(block):
    model = decoder(block=block)
    x, length, candidates, row_of = inputs([5, 0, 7], [3, 2, 4], 1)
    together = encode_context(model, x, length)
    joined = Context.join([together.user(u) for u in range(3)])
    assert joined.lengths == together.lengths
    torch.testing.assert_close(cross(model, joined, candidates, row_of), cross(model, together, candidates, row_of))


@pytest.mark.parametrize("block", BLOCKS)
@torch.no_grad()
def test_no_users_have_no_contexts(block):
    model = decoder(block=block)
    context = encode_context(model, torch.zeros(0, 5, 16), torch.zeros(0, dtype=torch.int64), states=True)
    assert len(context) == len(context.state_ULD) == 0
    assert cross(model, context, torch.zeros(0, 1, 16), torch.zeros(0, dtype=torch.int64)).shape == (0, 16)


@pytest.mark.parametrize("block", BLOCKS)
def test_no_candidates_have_no_states(block):
    model = decoder(block=block)
    x, length, candidates, row_of = inputs([5, 3], [0, 0], 1)
    assert cross(model, encode_context(model, x, length), candidates, row_of).shape == (0, 16)


def test_what_cannot_be_meant_is_refused():
    model = decoder()
    x, length, candidates, row_of = inputs([5, 3], [2, 2], 2)
    context = encode_context(model, x, length)
    with pytest.raises(ValueError, match="grouped"):
        cross(model, context, candidates, row_of.flip(0))
    with pytest.raises(ValueError, match="beyond"):
        cross(model, context, candidates, row_of + 1)
    with pytest.raises(ValueError, match="slots"):
        cross(model, context, candidates, row_of, slots=1)
