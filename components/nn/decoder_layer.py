"""What the layers of `components.nn.decoder.CausalDecoder` have in common, whoever they let attend to whom and how.

What a layer does to one token (`project`, `finish`) stands apart from who attends to whom, so that DCAT
(`components.serving.dcat`) runs the same layers over a shared context and its candidates.

Shapes: U sequences, L positions oldest first, D width, H heads, E = D / H. `...` are any leading dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from components.nn.dropout import ByteDropout
from components.nn.linear import Linear

Rotation = tuple[Tensor, Tensor] | None
"""Cosines and sines [..., 1, E / 2] of the tokens' positions, to be applied to queries and keys (None: no rotation)."""

BLOCKS = ("gpt2", "hstu")
POSITIONS = ("rotary", "learned", "none")


@dataclass(frozen=True)
class DecoderConfig:
    """Size of a `CausalDecoder`.

    Attributes:
        block: its layers: 'gpt2' (softmax attention, then an FFN) or 'hstu' (pointwise attention and a gate, no FFN).
        position: 'rotary' (RoFormer: queries and keys are rotated), 'learned' (a vector added to the input) or 'none'.
            HSTU's layers have a bias by distance whatever it is.
        max_length: positions that exist, candidates' own included.
        dropout: of the input and of what each half of a layer adds; attention weights are not dropped.
    """

    dim: int = 256
    layers: int = 4
    heads: int = 4
    ffn: int = 1024
    block: str = "gpt2"
    position: str = "rotary"
    max_length: int = 512
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for field, choices in (("block", BLOCKS), ("position", POSITIONS)):
            if getattr(self, field) not in choices:
                raise ValueError(f"{field} is '{getattr(self, field)}', not one of: {', '.join(choices)}")
        if self.dim % self.heads or (self.position == "rotary" and self.dim // self.heads % 2):
            raise ValueError(f"width {self.dim} does not divide into {self.heads} heads (of even width if rotary)")

    @classmethod
    def debug(cls) -> Self:
        return cls(dim=16, layers=2, heads=2, ffn=32, max_length=64, dropout=0.0)


class Projected(NamedTuple):
    """Tokens as a layer's attention sees them.

    Attributes:
        q, k, v: queries, keys and values [..., H, E], rotated.
        gate: what `finish` multiplies mixed values by, [..., D]; None: nothing.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    gate: Tensor | None = None

    def asked_by_last(self) -> Projected:
        """Of [B, S] tokens the last alone asks; all are asked."""
        return Projected(self.q[:, -1:], self.k, self.v, None if self.gate is None else self.gate[:, -1:])


class DecoderLayer(nn.Module, ABC):
    """A residual layer: x + what its attention makes of norm(x)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = ByteDropout(config.dropout)

    @property
    @abstractmethod
    def adds(self) -> tuple[Linear, ...]:
        """What adds to the residual stream."""

    @abstractmethod
    def project(self, x: Tensor, rotation: Rotation) -> Projected:
        """[..., D] → what attention needs of it."""

    @abstractmethod
    def project_context(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """[..., D] → keys and values [..., H, E]: all that the last layer needs of a context."""

    @abstractmethod
    def attend(self, q_ULHE: Tensor, k_ULHE: Tensor, v_ULHE: Tensor, seen_ULL: Tensor | None = None) -> Tensor:
        """Mixed values [U, L, H, E]. `seen_ULL`: which keys a query sees, bool; default: its own and earlier ones."""

    @abstractmethod
    def finish(self, x: Tensor, mixed: Tensor, gate: Tensor | None) -> Tensor:
        """The rest of the layer: x [..., D], mixed values [..., H, E] and `Projected.gate` → [..., D]."""

    @abstractmethod
    def begin_by_copying(self, factor: float) -> None:
        """Untrained, add `factor` times the mean of what has been seen, layer-normed (HSTU: its direction alone)."""

    def forward(self, x_ULD: Tensor, rotation: Rotation) -> Tensor:
        """Every token attends to itself and those before it. [U, L, D] → [U, L, D]."""
        q, k, v, gate = self.project(x_ULD, rotation)
        return self.finish(x_ULD, self.attend(q, k, v), gate)

    @staticmethod
    @torch.no_grad()
    def _copy(projection: Linear, out: Linear, factor: float) -> None:
        """W_out W_v = `factor` · 1, W_v orthogonal: the last rows of `projection`."""
        dim = out.in_features
        basis = nn.init.orthogonal_(torch.empty(dim, dim))
        projection.weight[-dim:] = basis
        out.weight.copy_(factor * basis.T)

    def _add(self, x: Tensor, linear: Linear, y: Tensor) -> Tensor:
        if not self.training:
            return linear.plus(y, x)
        out: Tensor = x + self.dropout(linear(y))
        return out


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate the pairs (i, i + E/2) of x [..., H, E] (Su et al., RoFormer, Eq. 34)."""
    if rotation is None:
        return x
    cos, sin = rotation
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
