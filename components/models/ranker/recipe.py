"""What every recipe of a host ranker shares: rows, optimiser, loss, measures, artifact."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from torch import Tensor, nn

from components.evaluation.metrics import hits_at
from components.history.items import ItemTable
from components.history.schema import FeatureSchema
from components.models.artifact import fill
from components.models.ranker.artifact import save_ranker
from components.models.ranker.batch import RankingBatch
from components.models.ranker.config import RankerConfig
from components.models.ranker.data import COLUMNS, RowSummary, collate, summarize
from components.models.ranker.model import Ranker
from components.models.ranker.objective import RankingLoss, kept_entropy
from components.models.schedule import warm_cosine
from components.models.source import ParquetSource, Piece, in_order, row_groups
from components.nn.hashed import SharedSparseAdam, exchanged
from components.recipe import Optimization, Rank, Recipe, RecipeInputs, Sums, unwrap


class RankerRecipe(Recipe[RankingBatch]):
    """A recipe whose model is a `Ranker`; a family says which sequence modules it holds."""

    monitor = "loss"
    higher_is_better = False
    batch_field = "requests_per_batch"

    def __init__(self, config: RankerConfig, inputs: RecipeInputs) -> None:
        super().__init__(config, inputs)
        self.schema = FeatureSchema.load(inputs.files("schema")[0])
        self.criterion = RankingLoss(inputs.contract)

    @staticmethod
    @abstractmethod
    def build_ranker(config: Any, schema: FeatureSchema) -> Ranker:
        """The family's model from what an artifact holds."""

    @cached_property
    def items(self) -> ItemTable:
        return ItemTable.load({Path(f).name: f for f in self.inputs.files("items")})

    def build_model(self) -> nn.Module:
        """The family's model; its heads start at how often they happen."""
        model = self.build_ranker(self.config, self.schema)
        with torch.no_grad():
            model.heads.bias.copy_(torch.tensor(self.summary.log_odds))
        return model

    def optimizations(self, model: nn.Module, total_steps: int) -> list[Optimization]:
        """Adam with linear warm-up and cosine decay; the peak scales with the square root of the rows of a step.

        A sequence module's parameters have the share of that rate which it asks for. Tables with sparse gradients have
        an Adam of the rows that a batch looked up, without weight decay.
        """
        peak = self.config.learning_rate * math.sqrt(self._rows_per_step() / self.config.reference_rows)
        bare = cast(Ranker, unwrap(model))
        tables = {bare.get_parameter(name) for name in exchanged(bare)}

        def groups(sparse: bool) -> list[dict[str, Any]]:
            parts = [(factor, [p for p in every if (p in tables) == sparse]) for factor, every in bare.learning_rates()]
            return [{"params": own, "lr": factor * peak} for factor, own in parts if own]

        weight_decay = self.config.weight_decay
        adam = torch.optim.AdamW(groups(sparse=False), lr=peak, weight_decay=weight_decay, fused=True)
        found = [adam, SharedSparseAdam(groups(sparse=True), lr=peak)] if tables else [adam]
        return [Optimization(o, warm_cosine(o, total_steps, self.config.warmup)) for o in found]

    def _rows_per_step(self) -> float:
        workers = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        return self.summary.per_request * self.config.requests_per_batch * workers

    @cached_property
    def pieces(self) -> list[Piece]:
        """What of `examples/train` is learned from: all."""
        return row_groups(self.inputs.files("examples/train"))

    @cached_property
    def summary(self) -> RowSummary:
        return summarize(self.pieces, len(self.schema.heads), self.config.negatives_per_request)

    @cached_property
    def _user_weights(self) -> pl.DataFrame | None:
        if not self.inputs.contract.user_weights:
            return None
        return pl.read_parquet(self.inputs.files("user_stats"), columns=["user_id", "weight"])

    def train_batches(self, rank: Rank) -> ParquetSource[RankingBatch]:
        config = self.config

        def make(rows: pa.Table, rng: np.random.Generator) -> RankingBatch:
            return self._collate(
                rows,
                negatives=config.negatives_per_request,
                rng=rng,
                surface_dropout=config.surface_dropout,
                weights=self._user_weights,
            )

        return ParquetSource(
            self.inputs.files("examples/train"),
            list(COLUMNS),
            make,
            batch=config.requests_per_batch,
            rank=rank,
            seed=self.inputs.seed,
            shuffle=config.shuffle_requests,
            pieces=lambda _: self.pieces,
        )

    def validation_batches(self, rank: Rank) -> Iterator[RankingBatch]:
        files, size = self.inputs.files("examples/validation"), self.config.validation_requests_per_batch
        return map(self._collate, in_order(files, list(COLUMNS), batch=size, rank=rank))

    def _collate(self, rows: pa.Table, **options: Any) -> RankingBatch:
        return collate(rows, self.items, self.schema, sequence_length=self.config.window, **options)

    def loss(self, model: nn.Module, batch: RankingBatch) -> tuple[Tensor, dict[str, float]]:
        """The ranking loss and what the sequence modules add; each a curve when there is more than one."""
        losses: dict[str, Tensor] = model(batch, self.criterion.to(batch.row_of_B.device))
        numbers = {name: float(loss.detach()) for name, loss in losses.items()} if len(losses) > 1 else {}
        return torch.stack([*losses.values()]).sum(), numbers

    def measure(self, model: nn.Module, batch: RankingBatch) -> Sums:
        """`loss` (log-loss of kept rows, over all heads) and HIT@3 of the final score, per head and of wanted ones."""
        logits = model(batch).float()
        entropy, kept = kept_entropy(logits, batch)
        utility = self.utility.to(logits.device)
        score = torch.sigmoid(logits) @ utility
        found, asked = hits_at(score, batch.labels_BH, batch.row_of_B, batch.requests, utility)
        names = ("hit@3", *(f"hit@3/{head}" for head in self.schema.heads))
        hits = zip(names, found.tolist(), asked.tolist(), strict=True)
        return {"loss": (float((entropy * kept).sum()), float(kept.sum())), **{n: (f, a) for n, f, a in hits}}

    @cached_property
    def utility(self) -> Tensor:
        return torch.tensor([self.inputs.contract.head_utility[h] for h in self.schema.heads])

    def export(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, Ranker)
        save_ranker(
            folder,
            model,
            self.config,
            recipe=self.name,
            contract=self.inputs.contract,
            schema=self.schema,
            vectors=self.inputs.vectors,
            feature_service=self.inputs.feature_service or self.schema.service,
            negative_sampling_rate=self.summary.kept,
        )

    def export_again(self, artifact: Path, folder: Path) -> None:
        model = self.build_ranker(self.config, self.schema)
        fill(model, artifact)
        self.export(model.eval(), folder)
