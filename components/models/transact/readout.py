"""From the encoder's outputs to a fixed width: the eight read-outs of TransAct's Table 4."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.models.transact.config import TransActConfig


class Readout(nn.Module):
    """Columns of the output, flattened, and/or a linear map of their maximum; positions are newest first.

    'random' columns are drawn once, at construction: the same ones ever after, so that scores are reproducible.
    """

    columns: Tensor | None

    def __init__(self, config: TransActConfig, length: int, dim: int) -> None:
        super().__init__()
        kind, k = config.readout, min(config.first_k, length)
        columns = {
            "random": torch.randperm(length)[:1],
            "first": torch.arange(1),
            "random_k": torch.randperm(length)[:k],
            "first_k": torch.arange(k),
            "first_k_max_pool": torch.arange(k),
            "all": torch.arange(length),
            "all_max_pool": torch.arange(length),
        }.get(kind)
        self.register_buffer("columns", columns)
        self.linear = nn.Linear(dim, dim) if "max_pool" in kind else None
        self.pool_padding = config.public_module
        self.out_dim = dim * ((self.linear is not None) + (0 if columns is None else len(columns)))

    @property
    def queries(self) -> int | None:
        """How many first positions of the last layer are needed; None = all."""
        return None if self.linear is not None or self.columns is None else int(self.columns.max()) + 1

    def forward(self, x_BLD: Tensor, padding_BL: Tensor) -> Tensor:
        """[B, L, D] and where it is padding → [B, out_dim]."""
        parts = []
        if self.linear is not None:
            pooled = x_BLD if self.pool_padding else x_BLD.masked_fill(padding_BL[..., None], -torch.inf)
            parts.append(self.linear(pooled.max(1).values))
        if self.columns is not None:
            parts.append(self._columns(x_BLD, padding_BL).flatten(1))
        return torch.cat(parts, dim=-1)

    def _columns(self, x_BLD: Tensor, padding_BL: Tensor) -> Tensor:
        """The chosen positions, zero where there is no action. [B, K, D]."""
        assert self.columns is not None
        inside = self.columns.clamp(max=x_BLD.shape[1] - 1)
        chosen = x_BLD[:, inside]
        if self.pool_padding:
            return chosen
        missing = padding_BL[:, inside] | (self.columns >= x_BLD.shape[1])
        return chosen.masked_fill(missing[..., None], 0.0)
