"""SASRec's training: rows are users' whole histories, the task is the next step; deliberately unlike the ranker's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from components.contract import Role, Ties
from components.errors import UserError
from components.evaluation.next_items import Questions, Scorer
from components.history.items import ItemTable
from components.models.sasrec.artifact import answers, describe_sasrec, load_sasrec, save_sasrec
from components.models.sasrec.config import ABLATIONS, SASRecConfig
from components.models.sasrec.data import COLUMNS, StepBatch, collate, steps_of
from components.models.sasrec.model import SASRec
from components.models.sasrec.objective import clashes, hits_and_ndcg, pair_loss, weigh_negatives
from components.models.sequence import SequenceRecipe
from components.models.source import ParquetSource, in_order
from components.recipe import Optimization, Rank, RecipeInputs, Sums, unwrap

TOP = 10


class SASRecRecipe(SequenceRecipe[StepBatch]):
    """Trains on everything strictly before the validation date, validates on the steps after it, before the test."""

    name = "sasrec"
    config_type = SASRecConfig
    monitor = "ndcg@10"
    batch_field = "users_per_batch"
    higher_is_better = True
    ablations = ABLATIONS

    def __init__(self, config: SASRecConfig, inputs: RecipeInputs) -> None:
        super().__init__(config, inputs)
        start, stop = inputs.contract.splits.interval("validation")
        self.validation, self.test = round(start.timestamp() * 1e6), round(stop.timestamp() * 1e6)

    @cached_property
    def items(self) -> ItemTable:
        return ItemTable.load({Path(f).name: f for f in self.inputs.files("items")})

    @cached_property
    def counted(self) -> tuple[Tensor, int]:
        """Training actions of each item, int64 [N], and the first one's moment (µs since epoch)."""
        counts, first = np.zeros(len(self.items), np.int64), self.validation
        for rows in in_order(self.inputs.files("histories"), COLUMNS, batch=10_000, rank=Rank()):
            steps = steps_of(rows, self.inputs.contract, self.validation)
            counts += np.bincount(steps.item, minlength=len(counts))
            first = min(first, int(steps.time.min(initial=first)))
        return torch.from_numpy(counts), first

    @property
    def counts(self) -> Tensor:
        return self.counted[0]

    @cached_property
    def proposal(self) -> Tensor:
        """Probability with which each item is drawn as a negative. float32 [N]."""
        weight = torch.where(self.counts > 0, self.counts.double() ** self.config.negative_power, 0.0)
        if not float(weight.sum()):
            raise UserError(
                "no positive action lies before the validation date",
                "ingest earlier days, or move `contract.splits.validation` of the data set",
            )
        return (weight / weight.sum()).float()

    def build_model(self) -> nn.Module:
        model = SASRec(self.config, len(self.items))
        model.count_N.copy_(self.counts)
        model.key_N.copy_(torch.from_numpy(np.array(self.items.keys)))
        return model

    def optimizations(self, model: nn.Module, total_steps: int) -> list[Optimization]:
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return [Optimization(torch.optim.Adam(model.parameters(), rate, weight_decay=decay))]

    def train_batches(self, rank: Rank) -> ParquetSource[StepBatch]:
        def make(rows: pa.Table, rng: np.random.Generator) -> StepBatch:
            return self._collate(rows, self.validation, rng=rng)

        return ParquetSource(
            self.inputs.files("histories"),
            COLUMNS,
            make,
            batch=self.config.users_per_batch,
            rank=rank,
            seed=self.inputs.seed,
            shuffle=self.config.shuffle_users,
        )

    def validation_batches(self, rank: Rank) -> Iterator[StepBatch]:
        files, size = self.inputs.files("histories"), self.config.users_per_batch
        for rows in in_order(files, COLUMNS, batch=size, rank=rank):
            yield self._collate(rows, self.test, since=self.validation)

    def _collate(
        self, rows: pa.Table, stop: int, since: int | None = None, rng: np.random.Generator | None = None
    ) -> StepBatch:
        return collate(rows, self.inputs.contract, stop=stop, length=self.config.length, since=since, rng=rng)

    def loss(self, model: nn.Module, batch: StepBatch) -> tuple[Tensor, dict[str, float]]:
        kind = self.config.loss
        states, vectors = model(batch), _bare(model).item
        proposal = self.proposal.to(states.device)
        negative = torch.multinomial(proposal, self.config.negatives, replacement=True)
        log_q = torch.log(self.config.negatives * proposal[negative])
        clash = clashes(batch.source_K, batch.target_K, negative, len(states))
        against = weigh_negatives(kind, states @ vectors(negative).T, log_q, clash)
        positive = (states[batch.source_K] * vectors(batch.target_K)).sum(-1)
        return pair_loss(kind, positive, against[batch.source_K]), {}

    def measure(self, model: nn.Module, batch: StepBatch) -> Sums:
        """HIT@10 and NDCG@10 of the set of items of the next step, among all items seen in training."""
        if not len(batch.source_K):
            return {"hit@10": (0.0, 0.0), "ndcg@10": (0.0, 0.0)}
        bare = _bare(model)
        source, query = torch.unique(batch.source_K, return_inverse=True)
        top = bare.scores(model(batch)[source]).topk(TOP).indices
        hit, ndcg = hits_and_ndcg(top, query, batch.target_K, len(source))
        weight = float(len(source))
        return {"hit@10": (float(hit.sum()), weight), "ndcg@10": (float(ndcg.sum()), weight)}

    def export(self, model: nn.Module, folder: Path) -> None:
        contract = self.inputs.contract
        save_sasrec(
            folder,
            _bare(model),
            positive=contract.indices(Role.POSITIVE),
            ordered=contract.ties is Ties.ORDERED,
            learned=(self.counted[1], self.test - 1),
            feature_service=self.inputs.feature_service,
        )

    @staticmethod
    def learned(folder: Path) -> tuple[int, int]:
        first, last = describe_sasrec(folder)["learned"]
        return first, last

    @staticmethod
    def scorer(folder: Path, questions: Questions, items: ItemTable) -> Scorer:
        said = describe_sasrec(folder)
        return answers(load_sasrec(folder), questions, items, said["positive"], said["ordered"])


def _bare(model: nn.Module) -> SASRec:
    bare = unwrap(model)
    assert isinstance(bare, SASRec)
    return bare
