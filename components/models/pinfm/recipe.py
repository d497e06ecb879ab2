"""PinFM's pretraining: everybody's events before the validation date, as id-only segments, with three losses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.contract import Role
from components.errors import UserError
from components.evaluation.next_items import QueryBatch, Questions, Scorer, ask, places_of, recall, reciprocal_rank
from components.history.items import ItemTable
from components.history.statistics import DAY
from components.models.pinfm.artifact import describe_pinfm, load_pinfm, save_pinfm, save_table
from components.models.pinfm.config import ABLATIONS, PinFMConfig
from components.models.pinfm.data import LOSSES, SegmentBatch, SegmentCollator
from components.models.pinfm.model import PinFM
from components.models.pinfm.objective import by_loss, info_nce
from components.models.pinfm.segments import COLUMNS, Cut, Segments
from components.models.schedule import warm_cosine
from components.models.sequence import SequenceRecipe
from components.models.source import ParquetSource
from components.nn.hashed import RowWiseAdagrad, Shard
from components.nn.linear import inner_products
from components.recipe import Optimization, Rank, RecipeInputs, Sums, unwrap

HITS = (10, 100)
QUERIES = 128
"""Questions scored at a time against the whole catalogue."""

ITEMS = 16_384
"""Items embedded at a time."""

FINAL_RATE = 0.1
"""Of the peak learning rate, at the last step."""


class PinFMRecipe(SequenceRecipe[Any]):
    """Trains on what is before the validation date, validates on what users choose next, before the test."""

    name = "pinfm"
    config_type = PinFMConfig
    monitor = "recall@10"
    higher_is_better = True
    ablations = ABLATIONS

    def __init__(self, config: PinFMConfig, inputs: RecipeInputs) -> None:
        super().__init__(config, inputs)
        self._targets: Tensor | None = None
        start, stop = inputs.contract.splits.interval("validation")
        self.validation, self.test = round(start.timestamp() * 1e6), round(stop.timestamp() * 1e6)

    @cached_property
    def items(self) -> ItemTable:
        return ItemTable.load({Path(f).name: f for f in self.inputs.files("items")})

    @property
    def trained_until(self) -> int:
        """Moment (µs since epoch) that no event which is learned from reaches."""
        return self.validation - self.config.hold_out_days * DAY

    @cached_property
    def segments(self) -> Segments:
        cut = Cut(self.trained_until, self.config.length, self.config.most_events)
        return Segments.of(self.inputs.files("histories"), cut, self.inputs.contract.indices(Role.POSITIVE))

    def build_model(self) -> nn.Module:
        actions = len(self.inputs.contract.actions)
        return PinFM(self.config, actions, shard=Shard.here(), sparse=True, seed=self.inputs.seed)

    def optimizations(self, model: nn.Module, total_steps: int) -> list[Optimization]:
        """AdamW for what is dense and, for the id table, an optimiser of the rows that a batch looked up."""
        config, bare = self.config, _bare(model)
        table = [bare.table.weight]
        dense = [p for p in bare.parameters() if p is not bare.table.weight]
        rows: torch.optim.Optimizer = (
            RowWiseAdagrad(table, lr=config.table_learning_rate)
            if config.table_optimizer == "adagrad"
            else torch.optim.SparseAdam(table, lr=config.table_learning_rate)
        )
        # Norms, biases and the temperature are no weights: nothing should pull them towards zero.
        matrices, others = ([p for p in dense if (p.ndim > 1) == many] for many in (True, False))
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        adamw = torch.optim.AdamW(groups, lr=config.learning_rate)
        return [Optimization(o, warm_cosine(o, total_steps, config.warmup, FINAL_RATE)) for o in (adamw, rows)]

    def train_batches(self, rank: Rank) -> ParquetSource[SegmentBatch]:
        pieces = self.segments.pieces
        return ParquetSource(
            self.inputs.files("histories"),
            COLUMNS,
            SegmentCollator(self.config, self.inputs.contract, self.segments.counts),
            batch=self.config.batch,
            rank=rank,
            seed=self.inputs.seed,
            shuffle=self.config.shuffle_segments,
            pieces=lambda _: pieces,
        )

    def loss(self, model: nn.Module, batch: SegmentBatch) -> tuple[Tensor, dict[str, float]]:
        h_PD, z_CD, temperature = model(batch)
        own_PC = batch.own_OC[batch.owner_P]
        each = info_nce(h_PD, z_CD, temperature, own_PC, batch.log_q_C, batch.source_K, batch.target_K)
        found = by_loss(each, batch.weight_K, batch.loss_K, len(LOSSES))
        weights = [getattr(self.config, name) for name in LOSSES]
        numbers = {name: float(f.detach()) for name, f, w in zip(LOSSES, found, weights, strict=True) if w}
        return found @ found.new_tensor(weights), {**numbers, "temperature": float(temperature.detach())}

    def validation_batches(self, rank: Rank) -> Iterator[QueryBatch]:
        # The model has learned since the last time.
        self._targets = None
        yield from self.questions.batches(self.config.length, QUERIES, rank.rank, rank.world)

    @cached_property
    def questions(self) -> Questions:
        """One moment of each user in the validation split, of at most `validation_queries` users; always the same."""
        files, contract = self.inputs.files("histories"), self.inputs.contract
        found = ask(files, contract, (self.validation, self.test), self.config.validation_queries, per_user=1)
        if not len(found):
            raise UserError(
                "no positive action lies in the validation split",
                "ingest its days, or move `contract.splits` of the data set",
            )
        return found

    def measure(self, model: nn.Module, batch: QueryBatch) -> Sums:
        """recall@K of the set of items chosen at the next moment, and MRR of the first of them; among all items."""
        assert isinstance(model, PinFM)
        if self._targets is None:
            self._targets = targets_of(model, self.items.keys)
        owner, item = batch.owner_P.cpu().numpy(), batch.item_P.cpu().numpy()
        asked = places_of(score(model, batch, self._targets), owner, item), owner, len(batch)
        values = {**{f"recall@{k}": recall(*asked, k) for k in HITS}, "mrr": reciprocal_rank(*asked)}
        return {name: (float(v.sum()), float(len(batch))) for name, v in values.items()}

    def export_own(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, PinFM)
        save_table(folder, model)

    def export(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, PinFM)
        save_pinfm(
            folder,
            model,
            actions=list(self.inputs.contract.action_index),
            learned=(self.segments.first, self.test - 1),
            trained_until=self.trained_until,
            feature_service=self.inputs.feature_service,
        )

    @staticmethod
    def learned(folder: Path) -> tuple[int, int]:
        first, last = describe_pinfm(folder)["learned"]
        return first, last

    @staticmethod
    def scorer(folder: Path, questions: Questions, items: ItemTable) -> Scorer:
        model = load_pinfm(folder)
        targets = targets_of(model, items.keys)
        return lambda asked: score(model, questions.batch(asked, model.config.length), targets)


@torch.no_grad()
def targets_of(model: PinFM, key_N: NDArray[np.int64]) -> Tensor:
    """ψ(emb(id)) of all items. [N, D]."""
    device = model.temperature_logit.device
    keys = torch.from_numpy(np.array(key_N)).to(device)
    return torch.cat([model.targets(model.embed(part)) for part in keys.split(ITEMS)]).float()


@torch.no_grad()
def score(model: PinFM, batch: QueryBatch, targets_ND: Tensor) -> NDArray[np.float32]:
    """Cosine of each question's last state with all items; 0 without any event before it. [Q, N]."""
    if not len(batch):
        # The other ranks ask for rows at this moment, and for this one's.
        model.embed(batch.key_QL)
        return np.zeros((0, len(targets_ND)), np.float32)
    states = model.states(batch.key_QL, batch.action_QL, batch.surface_QL, batch.length_Q)
    last = (batch.length_Q - 1).clamp(min=0)
    h_QD = states[torch.arange(len(last), device=last.device), last].float() * (batch.length_Q > 0)[:, None]
    scored: NDArray[np.float32] = inner_products(h_QD, targets_ND).cpu().numpy()
    return scored


def _bare(model: nn.Module) -> PinFM:
    bare = unwrap(model)
    assert isinstance(bare, PinFM)
    return bare
