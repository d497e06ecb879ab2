"""Embeddings addressed by hash: no vocabulary to exchange between artifact, snapshot and request."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def hash_rows(hashes: Tensor, rows: int) -> Tensor:
    """Rows in [0, rows) of `components.history.schema.id_hash` values, which are odd: their lowest bit says nothing."""
    return (hashes >> 1) % rows


class HashedEmbedding(nn.Module):
    """Vectors of `id_hash` values: one of `rows` by `hash_rows`, after row 0 for hash 0 (absent).

    Args:
        rows: number of hash rows; collisions share a vector.
        absent: 'learned' trains one vector for absent or unseen values, 'zero' keeps it at zero.
    """

    def __init__(self, rows: int, dim: int, absent: str = "learned") -> None:
        super().__init__()
        self.rows = rows
        self.table = nn.Embedding(rows + 1, dim, padding_idx=0 if absent == "zero" else None)
        nn.init.normal_(self.table.weight, std=0.05)
        if absent == "zero":
            nn.init.zeros_(self.table.weight[0])

    def forward(self, hashes: Tensor) -> Tensor:
        """[...] int64 hashes → [..., dim]."""
        row = torch.where(hashes > 0, 1 + hash_rows(hashes, self.rows), 0)
        vectors: Tensor = self.table(row)
        return vectors


class HashedColumns(nn.Module):
    """A `HashedEmbedding` for each of several columns, all in one table: one look-up, however many columns.

    Args:
        rows, dim, absent: of each column, as there.
    """

    first_C: Tensor

    def __init__(self, columns: int, rows: int, dim: int, absent: str = "learned") -> None:
        super().__init__()
        self.rows, self.zero = rows, absent == "zero"
        self.table = nn.Embedding(columns * (rows + 1), dim, padding_idx=0 if self.zero and columns else None)
        nn.init.normal_(self.table.weight, std=0.05)
        self.register_buffer("first_C", torch.arange(columns) * (rows + 1), persistent=False)
        if self.zero:
            nn.init.zeros_(self.table.weight[:1])

    def forward(self, hashes: Tensor) -> Tensor:
        """[..., C] int64 hashes → [..., C · dim], column after column."""
        none = torch.zeros_like(self.first_C) if self.zero else self.first_C
        row = torch.where(hashes > 0, self.first_C + 1 + hash_rows(hashes, self.rows), none)
        vectors: Tensor = self.table(row)
        return vectors.flatten(-2)
