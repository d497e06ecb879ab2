"""Products of tokens and weights by oneDNN on CPUs, forward and backward.

torch multiplies float32 matrices by MKL, which keeps to AVX2 on CPUs that are not Intel's; oneDNN, in the same wheel,
uses what the CPU has and adds an activation or a residual in the same pass. `benchmarks.dcat` prints both rates.
Elsewhere (other devices, tiny products, wheels without oneDNN) everything is `F.linear`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 2**19
"""Multiplications below which oneDNN's set-up costs more than it saves."""

_TYPES = {torch.float32}
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
if _ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    _TYPES.add(torch.bfloat16)


def fast(x: Tensor, outputs: int) -> bool:
    """Whether oneDNN is the faster way to multiply x [..., K] and a [K, outputs] matrix."""
    suits = _ONEDNN and x.is_cpu and x.dtype in _TYPES
    return suits and x.numel() * outputs >= SMALLEST and not torch.is_autocast_enabled("cpu")


def times_transposed(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., K] times weightᵀ of [N, K], plus a bias [N]; any strides. Outside autograd, where `fast`."""
    # Weights whose rows lie apart are left to oneDNN's reference code, a thousand times slower.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def inner_products(x: Tensor, y: Tensor) -> Tensor:
    """Of x [n, D] and y [m, D], all with all, in float32 [n, m] whatever autocast says: bfloat16 tells 256 apart."""
    with torch.autocast(x.device.type, enabled=False):
        return x.float() @ y.float().T


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return times_transposed(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        rows = grad.flatten(0, -2)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        to_x = times_transposed(grad, weight.t()) if wants_x else None
        to_weight = times_transposed(rows.t(), x.flatten(0, -2).t()) if wants_weight else None
        return to_x, to_weight, rows.sum(0) if wants_bias else None


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear`: x [..., K], weight [N, K], bias [N] → [..., N]."""
    if not fast(x, len(weight)):
        return F.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return times_transposed(x, weight, bias)
    out: Tensor = _Linear.apply(x, weight, bias)
    return out


class Linear(nn.Linear):
    """`nn.Linear` with a bias, and two ways to do more in the same pass where no gradient is asked for."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU of the product."""
        if torch.is_grad_enabled() or not fast(x, self.out_features):
            return F.gelu(self(x))
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")
        return out

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """The product, added to `residual` [..., N]."""
        if torch.is_grad_enabled() or not fast(x, self.out_features):
            return residual + self(x)
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
        return out
