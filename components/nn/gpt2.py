"""A layer in the manner of GPT-2, pre-norm: softmax attention, then an FFN with GELU. Shapes as in `decoder_layer`."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.nn.decoder_layer import DecoderConfig, DecoderLayer, Projected, Rotation, rotate
from components.nn.linear import Linear, fast, linear, times_transposed

DENSE = 512
"""Tokens up to which a CPU that needs no gradients attends over whole matrices."""


class GPT2Layer(DecoderLayer):
    """x + attention(norm(x)), then x + FFN(norm(x))."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        dim = config.dim
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = Linear(dim, 3 * dim), Linear(dim, dim)
        self.up, self.down = Linear(dim, config.ffn), Linear(config.ffn, dim)

    @property
    def adds(self) -> tuple[Linear, ...]:
        return self.out, self.down

    def project(self, x: Tensor, rotation: Rotation) -> Projected:
        projected = self.qkv(self.norm1(x)).unflatten(-1, (3 * self.heads, -1))
        qk, v = projected.split([2 * self.heads, self.heads], dim=-2)
        q, k = rotate(qk, rotation).chunk(2, dim=-2)
        return Projected(q, k, v)

    def project_context(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        dim = x.shape[-1]
        projected = linear(self.norm1(x), self.qkv.weight[dim:], self.qkv.bias[dim:])
        k, v = projected.unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return rotate(k, rotation), v

    def attend(self, q_ULHE: Tensor, k_ULHE: Tensor, v_ULHE: Tensor, seen_ULL: Tensor | None = None) -> Tensor:
        q, k, v = (t.transpose(1, 2) for t in (q_ULHE, k_ULHE, v_ULHE))
        if seen_ULL is not None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=seen_ULL[:, None]).transpose(1, 2)
        if torch.is_grad_enabled() or not q.is_cpu or q.shape[2] > DENSE:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        return _dense_attention(q, k, v).transpose(1, 2)

    def finish(self, x: Tensor, mixed: Tensor, gate: Tensor | None) -> Tensor:
        x = self._add(x, self.out, mixed.flatten(-2))
        return self._add(x, self.down, self.up.gelu(self.norm2(x)))

    def begin_by_copying(self, factor: float) -> None:
        """Queries and keys are small at first, so that all that is seen weighs alike."""
        self._copy(self.qkv, self.out, factor)


@lru_cache(maxsize=4)
def _later(length: int, dtype: torch.dtype) -> Tensor:
    """−inf where the key comes after the query, else 0. [L, L]."""
    with torch.inference_mode(False):
        return torch.full((length, length), -math.inf, dtype=dtype).triu(1)


def _dense_attention(q_UHLE: Tensor, k_UHLE: Tensor, v_UHLE: Tensor) -> Tensor:
    """Twice the products that causality asks for, at more than twice the speed of small blocks. [U, H, L, E]."""
    if not v_UHLE.numel():
        return v_UHLE
    q, length = q_UHLE * q_UHLE.shape[-1] ** -0.5, q_UHLE.shape[2]
    later = _later(length, q.dtype)
    if q.dtype != torch.float32 or not fast(q[0, 0], length):
        return torch.softmax(q @ k_UHLE.mT + later, dim=-1) @ v_UHLE
    heads = zip(*(t.contiguous().flatten(0, 1).unbind(0) for t in (q, k_UHLE, v_UHLE)), strict=True)
    weights = ((torch.softmax(times_transposed(q, k).add_(later), dim=-1), v) for q, k, v in heads)
    return torch.stack([times_transposed(w, v.mT) for w, v in weights]).view(v_UHLE.shape)
