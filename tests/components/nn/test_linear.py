"""Products by oneDNN are those of `nn.Linear`, forward, backward and fused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from components.nn import linear
from components.nn.linear import Linear, fast

SHAPES = [(5,), (300,), (3, 40), (0,)]


@pytest.fixture(params=["as it is", "without a smallest size"])
def sizes(request, monkeypatch):
    if request.param != "as it is":
        monkeypatch.setattr(linear, "SMALLEST", 1)


def pair(dtype):
    torch.manual_seed(0)
    ours, theirs = Linear(48, 80), nn.Linear(48, 80)
    theirs.load_state_dict(ours.state_dict())
    return ours.to(dtype), theirs.to(dtype)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_equals_the_linear_of_pytorch_and_its_gradients(shape, dtype, tolerance):
    ours, theirs = pair(dtype)
    x = torch.randn(*shape, 48, dtype=dtype)
    towards = torch.randn(*shape, 80, dtype=dtype)
    found = []
    for layer in (ours, theirs):
        at = x.clone().requires_grad_()
        out = layer(at)
        out.backward(towards)
        found.append((out, at.grad, layer.weight.grad, layer.bias.grad))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gradients", [True, False])
def test_what_is_fused_equals_one_step_after_the_other(shape, gradients):
    ours, theirs = pair(torch.float32)
    x, residual = torch.randn(*shape, 48), torch.randn(*shape, 80)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(ours.gelu(x), F.gelu(theirs(x)), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.plus(x, residual), residual + theirs(x), rtol=1e-5, atol=1e-5)


def test_strided_tokens_are_read_as_they_lie():
    ours, theirs = pair(torch.float32)
    x = torch.randn(40, 48, 300).transpose(0, 2).transpose(1, 2)
    assert not x.is_contiguous()
    assert fast(x, 80) == linear._ONEDNN
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not linear._ONEDNN, reason="torch without oneDNN")
def test_weights_whose_rows_lie_apart_are_no_trap():
    x, apart = torch.randn(1000, 64), torch.randn(256, 4, 64)[:, 1]
    torch.testing.assert_close(linear.times_transposed(x, apart), x @ apart.t(), rtol=1e-5, atol=1e-4)
    with torch.profiler.profile() as profile:
        linear.times_transposed(x, apart)
        x @ apart.t()
    ours, theirs = (next(e for e in profile.events() if e.name == n) for n in ("mkldnn::_linear_pointwise", "aten::mm"))
    assert ours.cpu_time_total < 50 * theirs.cpu_time_total


def test_autocast_keeps_its_say():
    ours, x = Linear(48, 80), torch.randn(300, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
