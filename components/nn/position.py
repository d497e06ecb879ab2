"""Position encodings of a sequence, newest first: TransAct's ablations (App. B, Table 10)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoid(length: int, dim: int) -> Tensor:
    """Fixed sine and cosine features of the positions. [length, dim] float32."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10_000.0) / dim))
    table = torch.zeros(length, dim)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)[:, : dim // 2]
    return table


class PositionEncoding(nn.Module):
    """Adds a vector per position: 'learned' table, 'sinusoidal', or 'linear' (a learned map of the sinusoid)."""

    sinusoid: Tensor

    def __init__(self, kind: str, length: int, dim: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "learned":
            self.table = nn.Parameter(torch.randn(length, dim) * 0.02)
        else:
            self.register_buffer("sinusoid", sinusoid(length, dim), persistent=False)
            self.projection = nn.Linear(dim, dim) if kind == "linear" else nn.Identity()

    def forward(self, x_BLD: Tensor) -> Tensor:
        """[B, L, D] → [B, L, D]; L at most the length given at construction."""
        table = self.table if self.kind == "learned" else self.projection(self.sinusoid)
        return x_BLD + table[: x_BLD.shape[1]]
