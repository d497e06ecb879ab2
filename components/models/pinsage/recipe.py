"""PinSage's training: pairs of items that people chose one after the other, on the graph as of the training date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.errors import UserError
from components.evaluation.retrieval import places
from components.graph.bipartite import BipartiteGraph
from components.graph.draws import mixed
from components.graph.walks import WalkConfig, Walker
from components.models.pinsage.artifact import save_pinsage
from components.models.pinsage.catalogue import Catalogue, by_name
from components.models.pinsage.config import ABLATIONS, PinSageConfig
from components.models.pinsage.data import COLUMNS, KnownPairs, PairBatch, PairCollator, QueryBatch, query_batches
from components.models.pinsage.inference import embed
from components.models.pinsage.model import PinSage
from components.models.pinsage.objective import cross_entropy, max_margin, scores, weighted_mean
from components.models.source import ParquetSource
from components.nn.linear import inner_products
from components.recipe import Optimization, Rank, Recipe, RecipeInputs, Sums

HITS = (10, 100)
QUERIES = 128
"""Queries scored at a time against the whole catalogue when validating."""


class PinSageRecipe(Recipe[Any]):
    """Trains on `pairs/train`, validates on `pairs/validation` by the place of the positive in the whole catalogue."""

    name = "pinsage"
    config_type = PinSageConfig
    monitor = "mrr"
    higher_is_better = True
    kind = "vectors"
    ablations = ABLATIONS
    extra_inputs: ClassVar[Mapping[str, str]] = {"graph": "graph", "neighbourhoods": "neighbourhoods"}

    def __init__(self, config: PinSageConfig, inputs: RecipeInputs) -> None:
        super().__init__(config, inputs)
        self._vectors: Tensor | None = None
        self._hard = 0

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue.load(self.inputs.files).as_read_by(self.config)

    @cached_property
    def collator(self) -> PairCollator:
        known = KnownPairs.read(self.inputs.files("pairs/train"), len(self.catalogue))
        return PairCollator(self.config, self.catalogue, known)

    def build_model(self) -> nn.Module:
        content, categories = self.catalogue.content.shape[1], self.catalogue.category.shape[1]
        return PinSage(self.config, content, categories, len(self.catalogue))

    def optimizations(self, model: nn.Module, total_steps: int) -> list[Optimization]:
        """Adam; linear warm-up over the first epoch to a peak that scales with the pairs of a step, then decay."""
        workers = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        config = self.config
        peak = config.learning_rate * config.batch * workers / config.reference_batch
        adam = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=config.weight_decay)
        epoch = max(1, total_steps // config.epochs)

        def factor(step: int) -> float:
            return (step + 1) / epoch if step < epoch else float(config.decay ** ((step - epoch) / epoch))

        return [Optimization(adam, torch.optim.lr_scheduler.LambdaLR(adam, factor))]

    def train_batches(self, rank: Rank) -> ParquetSource[PairBatch]:
        return ParquetSource(
            self.inputs.files("pairs/train"),
            COLUMNS,
            self.collator,
            batch=self.config.batch,
            rank=rank,
            seed=self.inputs.seed,
            shuffle=self.config.shuffle_pairs,
            most=self.config.steps_per_epoch,
        )

    def on_epoch(self, epoch: int) -> None:
        """Section 3.3: no hard negatives in epoch 1, n − 1 per pair in epoch n, up to the most."""
        most = self.config.hard_negatives
        self.collator.hard = min(epoch, most) if self.config.curriculum else most
        if self.config.rewalk and epoch:
            self.collator.read(self._walked(epoch))

    def _walked(self, epoch: int) -> Catalogue:
        """The catalogue with neighbourhoods and band of other walks of the step's kind; validation keeps to its own.

        Raises:
            UserError: nothing says what kind that is.
        """
        step = self.inputs.params.get("neighbourhoods")
        if step is None:
            raise UserError(
                "`rewalk` walks as the step `neighbourhoods` did; these were not made by it",
                "run `pinloom step neighbourhoods train`, or train with `rewalk=false`",
            )
        config = WalkConfig(**step)
        config = replace(config, seed=mixed(config.seed, self.inputs.seed, epoch))
        graph = BipartiteGraph.load(by_name(self.inputs.files("graph")))
        walked = Walker(graph, config, torch.get_num_threads()).walk()
        near, stored = walked.neighbourhoods, Catalogue.load(self.inputs.files)
        found = replace(stored, neighbours=near.rows, weights=near.weights, band=walked.band)
        return found.as_read_by(self.config)

    def validation_batches(self, rank: Rank) -> Iterator[QueryBatch]:
        # The model has learned since the last time.
        self._vectors = None
        batches = query_batches(self.held_out, QUERIES)
        yield from batches[rank.rank :: rank.world]

    @cached_property
    def held_out(self) -> pl.DataFrame:
        """At most `validation_pairs` of the pairs of the validation split, always the same."""
        pairs = pl.read_parquet(self.inputs.files("pairs/validation"), columns=COLUMNS)
        if not pairs.height:
            raise UserError(
                "no pair of positive actions lies in the validation split",
                "ingest its days, or move `contract.splits` of the data set",
            )
        most = min(self.config.validation_pairs, pairs.height)
        return pairs[np.sort(np.random.default_rng(0).permutation(pairs.height)[:most])]

    def loss(self, model: nn.Module, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
        z_Rd: Tensor = model(batch.graph)
        loss = self._objective(z_Rd, batch)
        if self.config.compact_by == "trained":
            short_Rc = z_Rd[:, : self.config.trained_short]
            if self.config.length != "free":
                short_Rc = nn.functional.normalize(short_Rc, dim=1)
            loss = (loss + self._objective(short_Rc, batch)) / 2
        return loss, {}

    def _objective(self, z_Rd: Tensor, batch: PairBatch) -> Tensor:
        config = self.config
        positive, negative = scores(z_Rd, batch.query_B, batch.positive_B, batch.negative_S, batch.hard_BH)
        if config.loss == "margin":
            each = max_margin(positive, negative, batch.allowed_BN, config.margin)
        else:
            positive, negative = positive / config.temperature, negative / config.temperature
            if config.log_q:
                negative = negative - nn.functional.pad(batch.log_q_S, (0, negative.shape[1] - len(batch.log_q_S)))
            each = cross_entropy(positive, negative, batch.allowed_BN)
        return weighted_mean(each, batch.weight_B)

    def measure(self, model: nn.Module, batch: QueryBatch) -> Sums:
        """hit@K and scaled MRR of the held-out pairs, each against the whole catalogue."""
        assert isinstance(model, PinSage)
        if self._vectors is None:
            self._vectors = torch.from_numpy(embed(model, self.catalogue)).to(model.device)
        scored = inner_products(self._vectors[batch.query_Q], self._vectors).cpu().numpy()
        found = places(scored, *(t.cpu().numpy() for t in (batch.query_Q, batch.owner_P, batch.positive_P)))
        weight = batch.weight_P.double().cpu().numpy()
        values = {**{f"hit@{k}": found.hit(k) for k in HITS}, "mrr": found.reciprocal()}
        return {name: (float(v @ weight), float(weight.sum())) for name, v in values.items()}

    def export(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, PinSage)
        if self.config.compact_by == "pca":
            vectors = embed(model, self.catalogue)[1:]
            if self.config.length == "popular":
                vectors[:, -1] = 0
            centre, projection = principal(vectors, self.config.compact)
            model.centre_d.copy_(centre)
            model.projection_dc.copy_(projection)
        save_pinsage(folder, model, vectors=self.inputs.vectors, feature_service=self.inputs.feature_service)


def principal(vectors_Nd: NDArray[np.float32], width: int) -> tuple[Tensor, Tensor]:
    """PCA: the mean [d], which all vectors of a popular catalogue share, and the widest directions about it [d, width].

    Where d < width, the last directions are zero.
    """
    z = torch.from_numpy(vectors_Nd).double()
    centre = z.mean(0)
    directions = torch.linalg.eigh((z - centre).T @ (z - centre)).eigenvectors.flip(1)
    kept = torch.zeros(z.shape[1], width)
    kept[:, : z.shape[1]] = directions[:, :width].float()
    return centre.float(), kept
