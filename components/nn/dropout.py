"""Dropout from random bytes: on a CPU drawing the mask, not applying it, is what `nn.Dropout` costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _MaskAndScale(torch.autograd.Function):
    """x ⊙ keep · scale in one pass each way; saves the mask as bytes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return (x * keep).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return (grads[0] * keep).mul_(ctx.scale), None, None


class ByteDropout(nn.Module):
    """Dropout whose probability is rounded to 1/256, so that one 64-bit draw serves eight elements.

    Unbiased: kept values are scaled by the rounded probability. Draws from torch's default generator.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.threshold = round(p * 256)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, same shape back."""
        if not self.training or self.threshold == 0:
            return x
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
        # The whole range: a plain `random_()` leaves the sign bit clear, and every eighth byte below 128.
        words.random_(-(2**63), None)
        keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.threshold
        out: Tensor = _MaskAndScale.apply(x, keep, 256 / (256 - self.threshold))
        return out
