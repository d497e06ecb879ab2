"""A causal decoder in the manner of GPT-2: pre-norm layers, GELU, a last norm; positions learned or rotary.

What a layer does to one token (`project`, `finish`) stands apart from who attends to whom, so that DCAT
(`components.serving.dcat`) runs the same layers over a shared context and its candidates.

Shapes: U sequences, L positions oldest first, D width, H heads, E = D / H. `...` are any leading dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.nn.dropout import ByteDropout
from components.nn.linear import Linear, fast, linear, times_transposed

Rotation = tuple[Tensor, Tensor] | None
"""Cosines and sines [..., 1, E / 2] of the tokens' positions, to be applied to queries and keys (None: no rotation)."""


DENSE = 512
"""Tokens up to which a CPU that needs no gradients attends over whole matrices."""


@dataclass(frozen=True)
class DecoderConfig:
    """Size of a `CausalDecoder`.

    Attributes:
        position: 'rotary' (RoFormer: queries and keys are rotated) or 'learned' (a vector added to the input).
        max_length: positions that exist, candidates' own included.
        dropout: of the input and of what each half of a layer adds; attention weights are not dropped.
    """

    dim: int = 256
    layers: int = 4
    heads: int = 4
    ffn: int = 1024
    position: str = "rotary"
    max_length: int = 512
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.position not in ("rotary", "learned"):
            raise ValueError(f"position is 'rotary' or 'learned', not '{self.position}'")
        if self.dim % self.heads or (self.position == "rotary" and self.dim // self.heads % 2):
            raise ValueError(f"width {self.dim} does not divide into {self.heads} heads (of even width if rotary)")

    @classmethod
    def debug(cls) -> Self:
        return cls(dim=16, layers=2, heads=2, ffn=32, max_length=64, dropout=0.0)


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + FFN(norm(x)), with the attention itself left to the caller."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = Linear(dim, 3 * dim), Linear(dim, dim)
        self.up, self.down = Linear(dim, config.ffn), Linear(config.ffn, dim)
        self.dropout = ByteDropout(config.dropout)

    def project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """[..., D] → queries, keys and values [..., H, E], rotated."""
        projected = self.qkv(self.norm1(x)).unflatten(-1, (3 * self.heads, -1))
        qk, v = projected.split([2 * self.heads, self.heads], dim=-2)
        q, k = rotate(qk, rotation).chunk(2, dim=-2)
        return q, k, v

    def project_context(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """[..., D] → keys and values [..., H, E]: all that the last layer needs of a context."""
        dim = x.shape[-1]
        projected = linear(self.norm1(x), self.qkv.weight[dim:], self.qkv.bias[dim:])
        k, v = projected.unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return rotate(k, rotation), v

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The rest of the layer: x [..., D] and mixed values [..., H, E] → [..., D]."""
        x = self._add(x, self.out, mixed.flatten(-2))
        return self._add(x, self.down, self.up.gelu(self.norm2(x)))

    def _add(self, x: Tensor, linear: Linear, y: Tensor) -> Tensor:
        if not self.training:
            return linear.plus(y, x)
        out: Tensor = x + self.dropout(linear(y))
        return out

    def forward(self, x_ULD: Tensor, rotation: Rotation) -> Tensor:
        """Every token attends to itself and those before it. [U, L, D] → [U, L, D]."""
        q, k, v = self.project(x_ULD, rotation)
        return self.finish(x_ULD, causal_attention(q, k, v))


class CausalDecoder(nn.Module):
    """Layers over tokens that others have embedded."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.position = nn.Embedding(config.max_length, config.dim) if config.position == "learned" else None
        self.dropout = ByteDropout(config.dropout)
        self.stack = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self._initialise()

    @property
    def layers(self) -> list[DecoderLayer]:
        return [cast(DecoderLayer, layer) for layer in self.stack]

    def forward(self, x_ULD: Tensor, length_U: Tensor | None = None) -> Tensor:
        """Each token's state given those before it. [U, L, D] → [U, L, D], L at most `max_length`.

        Tokens are oldest first and padding follows them, so that no token sees it. Given the number of tokens
        `length_U`, states of padding are zero; without it they mean nothing.
        """
        position = torch.arange(x_ULD.shape[1], device=x_ULD.device)
        x, rotation = self.enter(x_ULD, position), self.rotation(position)
        for layer in self.layers:
            x = layer(x, rotation)
        x = self.norm(x)
        return x if length_U is None else x.masked_fill((position >= length_U[:, None])[..., None], 0.0)

    def enter(self, x: Tensor, position: Tensor) -> Tensor:
        """Input of the first layer: tokens [..., D], at int64 positions that broadcast to [...]."""
        if self.position is not None:
            x = x + self.position(position)
        out: Tensor = self.dropout(x)
        return out

    def rotation(self, position: Tensor) -> Rotation:
        """The rotation of queries and keys at int64 positions [...], in float32 whatever the weights are."""
        if self.config.position != "rotary":
            return None
        half = self.config.dim // self.config.heads // 2
        rate = torch.exp(torch.arange(half, device=position.device) * (-math.log(10_000.0) / half))
        angle = position[..., None, None] * rate
        return angle.cos(), angle.sin()

    def _initialise(self) -> None:
        """GPT-2's: N(0, 0.02), and less for what adds to the residual stream, so that depth does not widen it."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for layer in self.layers:
            for adds in (layer.out, layer.down):
                nn.init.normal_(adds.weight, std=0.02 / math.sqrt(2 * self.config.layers))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate the pairs (i, i + E/2) of x [..., H, E] (Su et al., RoFormer, Eq. 34)."""
    if rotation is None:
        return x
    cos, sin = rotation
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def causal_attention(q_ULHE: Tensor, k_ULHE: Tensor, v_ULHE: Tensor) -> Tensor:
    """Mixed values [U, L, H, E]."""
    q, k, v = (t.transpose(1, 2) for t in (q_ULHE, k_ULHE, v_ULHE))
    if torch.is_grad_enabled() or not q.is_cpu or q.shape[2] > DENSE:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    return _dense_attention(q, k, v).transpose(1, 2)


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
