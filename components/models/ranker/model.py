"""The host ranker (Pinnability): features and sequence modules, crossed, one head per action. TransAct §3.1."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from components.history.schema import FeatureSchema
from components.models.ranker.batch import RankingBatch, Sequence
from components.models.ranker.config import RankerConfig
from components.nn.cross import CrossNetwork
from components.nn.embedding import HashedEmbedding


class SequenceModule(nn.Module, ABC):
    """Turns the users' actions into features of each candidate; a ranker holds any number of them."""

    out_dim: int

    @abstractmethod
    def forward(self, sequence: Sequence, candidate_vector_BD: Tensor, row_of_B: Tensor) -> Tensor:
        """Returns [B, out_dim]; candidate b belongs to request row_of_B[b]."""


class Ranker(nn.Module):
    """Embeddings, batch-normed numerics and sequence modules → full-rank DCN v2 → MLP → one logit per head.

    In training, logits are of the rows as they are; the loss adds the correction for negatives that were not kept
    (`objective`), so that a logit is that of the population.
    """

    def __init__(self, config: RankerConfig, schema: FeatureSchema, modules: dict[str, SequenceModule]) -> None:
        super().__init__()
        self.item = HashedEmbedding(config.item_rows, config.item_dim, config.absent)
        self.user = HashedEmbedding(config.user_rows, config.user_dim, config.absent)
        self.surface = HashedEmbedding(config.surface_rows, config.surface_dim, config.absent)
        self.categorical = nn.ModuleList(
            HashedEmbedding(config.category_rows, config.category_dim, config.absent) for _ in schema.categorical
        )
        self.candidate_norm = nn.BatchNorm1d(len(schema.candidate_numeric))
        self.user_norm = nn.BatchNorm1d(len(schema.user_numeric))
        self.sequences = nn.ModuleDict(modules)
        width = (
            config.item_dim + config.user_dim + config.surface_dim + config.category_dim * len(schema.categorical)
            + len(schema.candidate_numeric) + len(schema.user_numeric) + schema.vector_dim
            + sum(m.out_dim for m in modules.values())
        )  # fmt: skip
        self.cross = CrossNetwork(width, config.cross_layers)
        self.tower, last = _tower(width, config)
        self.heads = nn.Linear(last, len(schema.heads))

    def forward(self, batch: RankingBatch) -> Tensor:
        """Logits [B, H]."""
        x = torch.cat([*self._user(batch), *self._candidate(batch), *self._sequence(batch)], dim=-1)
        logits: Tensor = self.heads(self.tower(self.cross(x)))
        return logits

    def _user(self, batch: RankingBatch) -> list[Tensor]:
        row = batch.row_of_B
        return [self.user(batch.user_hash_U)[row], self.user_norm(batch.user_numeric_UG[row])]

    def _candidate(self, batch: RankingBatch) -> list[Tensor]:
        categories = [e(batch.candidate_categorical_BC[:, c]) for c, e in enumerate(self.categorical)]
        return [
            self.item(batch.candidate_hash_B),
            self.surface(batch.candidate_surface_B),
            self.candidate_norm(batch.candidate_numeric_BF),
            batch.candidate_vector_BD,
            *categories,
        ]

    def _sequence(self, batch: RankingBatch) -> list[Tensor]:
        modules = self.sequences.values()
        return [m(batch.sequence, batch.candidate_vector_BD, batch.row_of_B) for m in modules]


def _tower(width: int, config: RankerConfig) -> tuple[nn.Sequential, int]:
    layers: list[nn.Module] = []
    for hidden in config.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
        width = hidden
    return nn.Sequential(*layers), width
