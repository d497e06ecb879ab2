"""SASRec: a causal transformer over steps of items; a step is the mean of its items' vectors (Kang & McAuley 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.models.sasrec.config import SASRecConfig
from components.models.sasrec.data import StepBatch
from components.nn.attention import EncoderLayer
from components.nn.position import PositionEncoding


class SASRec(nn.Module):
    """Next-item scores from the items of earlier steps. Item vectors serve as inputs and as outputs.

    Args:
        items: rows of the item table; row 0 (unknown) is never scored.

    Buffers:
        count_N: training actions of each item; items without any are never recommended, and say nothing as input.
        key_N: `components.history.keys.key` of the item of each row: finds rows in another item table.
    """

    count_N: Tensor
    key_N: Tensor

    def __init__(self, config: SASRecConfig, items: int) -> None:
        super().__init__()
        self.config = config
        self.item = nn.Embedding(items, config.dim, padding_idx=0)
        nn.init.normal_(self.item.weight, std=config.dim**-0.5)
        self.position = PositionEncoding("learned", config.length + 1, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(config.dim, config.heads, config.ffn, config.dropout, norm_first=True)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.register_buffer("count_N", torch.zeros(items, dtype=torch.int64))
        self.register_buffer("key_N", torch.zeros(items, dtype=torch.int64))

    def forward(self, batch: StepBatch) -> Tensor:
        """States [P, D]: what each step of each user predicts of the next one."""
        known_M = batch.item_M * (self.count_N[batch.item_M] > 0)
        steps = F.embedding_bag(known_M, self.item.weight, batch.offset_P, mode="mean", padding_idx=0)
        steps = self.dropout(steps + self.position.table[batch.age_P])
        users, length = int(batch.users), int(batch.length)
        grid = steps.new_zeros(users * length, steps.shape[1]).index_copy(0, batch.slot_P, steps)
        x = grid.view(users, length, grid.shape[1])
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)[None]
        for layer in self.layers:
            x = layer(x, later)
        states: Tensor = self.norm(x).flatten(0, 1)[batch.slot_P]
        return states

    def scores(self, state_PD: Tensor) -> Tensor:
        """Scores of all items, −inf for those never seen in training. [P, N]."""
        return (state_PD @ self.item.weight.T).masked_fill(self.count_N == 0, -torch.inf)
