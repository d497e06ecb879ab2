"""The host ranker (Pinnability): features and sequence modules, crossed, one head per action. TransAct §3.1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from components.history.schema import FeatureSchema
from components.models.ranker.batch import RankingBatch
from components.models.ranker.config import RankerConfig
from components.models.ranker.objective import RankingLoss
from components.nn.cross import CrossNetwork
from components.nn.embedding import HashedColumns, HashedEmbedding
from components.nn.linear import Linear


@dataclass(frozen=True)
class Reading:
    """What a sequence module made of a batch.

    Attributes:
        features_BK: what the ranker crosses with everything else, [B, out_dim].
    """

    features_BK: Tensor

    def losses(self, logits_BH: Tensor, batch: RankingBatch, criterion: RankingLoss) -> dict[str, Tensor]:
        """What the module adds to the training loss, weighted, by name; nothing unless it says so.

        Args:
            logits_BH: the ranker's.
        """
        return {}


class SequenceModule(nn.Module, ABC):
    """Turns the users' actions into features of each candidate; a ranker holds any number of them."""

    out_dim: int

    @abstractmethod
    def read(self, batch: RankingBatch) -> Reading:
        """Features of the batch's candidates, and what its own losses need."""

    def learning_rates(self) -> list[tuple[float, list[nn.Parameter]]]:
        """Parameters that learn at a factor of the ranker's learning rate, by the factor; the others at that rate."""
        return []

    def export_own(self, folder: Path) -> set[str]:
        """Write into an artifact's folder the weights that have files of their own. Returns their names here."""
        return set()

    def load_own(self, folder: Path) -> set[str]:
        """Open what `export_own` wrote. Returns the same names."""
        return set()

    def remember(self, limit_bytes: int) -> None:
        """Keep from request to request what depends on a user's actions alone, in at most so many bytes."""


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
        self.categorical = HashedColumns(
            len(schema.categorical), config.category_rows, config.category_dim, config.absent
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

    def forward(self, batch: RankingBatch, criterion: RankingLoss | None = None) -> Tensor | dict[str, Tensor]:
        """Logits [B, H]; with a criterion the training losses by name, to be added up, instead.

        Losses are computed here and not by the caller, so that DDP sees every use of a parameter.
        """
        readings = {name: module.read(batch) for name, module in self.modules_by_name.items()}
        features = [reading.features_BK for reading in readings.values()]
        x = torch.cat([*self._user(batch), *self._candidate(batch), *features], dim=-1)
        logits: Tensor = self.heads(self.tower(self.cross(x)))
        if criterion is None:
            return logits
        losses = {"ranking": criterion(logits, batch)}
        for name, reading in readings.items():
            own = reading.losses(logits, batch, criterion)
            losses |= {f"{name}/{term}": loss for term, loss in own.items()}
        return losses

    @property
    def modules_by_name(self) -> dict[str, SequenceModule]:
        return {name: cast(SequenceModule, module) for name, module in self.sequences.items()}

    def remember(self, limit_bytes: int) -> None:
        """`SequenceModule.remember` for each module."""
        for module in self.modules_by_name.values():
            module.remember(limit_bytes)

    def learning_rates(self) -> list[tuple[float, list[nn.Parameter]]]:
        """Trainable parameters by the factor of the learning rate at which they learn; that of most is 1."""
        slowed = [part for m in self.modules_by_name.values() for part in m.learning_rates()]
        theirs = {id(p) for _, parameters in slowed for p in parameters}
        groups = [(1.0, [p for p in self.parameters() if id(p) not in theirs]), *slowed]
        trained = [(factor, [p for p in parameters if p.requires_grad]) for factor, parameters in groups]
        return [(factor, parameters) for factor, parameters in trained if parameters]

    def _user(self, batch: RankingBatch) -> list[Tensor]:
        row = batch.row_of_B
        return [self.user(batch.user_hash_U)[row], self.user_norm(batch.user_numeric_UG[row])]

    def _candidate(self, batch: RankingBatch) -> list[Tensor]:
        return [
            self.item(batch.candidate_hash_B),
            self.surface(batch.candidate_surface_B),
            self.candidate_norm(batch.candidate_numeric_BF),
            batch.candidate_vector_BD,
            self.categorical(batch.candidate_categorical_BC),
        ]


def _tower(width: int, config: RankerConfig) -> tuple[nn.Sequential, int]:
    layers: list[nn.Module] = []
    for hidden in config.hidden:
        layers += [Linear(width, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
        width = hidden
    return nn.Sequential(*layers), width
