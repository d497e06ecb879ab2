"""A small real recipe for tests of the loop: logistic regression of a planted linear rule, from Parquet rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from components.contract import Contract
from components.history.schema import FeatureSchema
from components.recipe import BatchSource, Optimization, Rank, Recipe, RecipeInputs, Sums
from pinloom.lake import Lake, Manifest

WIDTH = 8

CONTRACT = Contract.model_validate(
    {
        "name": "planted",
        "actions": [{"name": "click", "role": "positive"}],
        "ties": "ordered",
        "splits": {"burn_in": "2024-01-01", "validation": "2024-02-01", "test": "2024-03-01", "end": "2024-04-01"},
    }
)


def planted_rows(rows: int, seed: int) -> pl.DataFrame:
    """Columns x0…x7 and `label`, which a fixed direction of x decides up to noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, WIDTH)).astype(np.float32)
    direction = np.linspace(-1, 1, WIDTH)
    label = (x @ direction + rng.logistic(size=rows) * 0.3 > 0).astype(np.float32)
    return pl.DataFrame({f"x{i}": x[:, i] for i in range(WIDTH)} | {"label": label})


def write_tables(folder: Path, rows: int = 4096) -> dict[str, list[str]]:
    folder.mkdir(parents=True, exist_ok=True)
    tables = {}
    for seed, (split, count) in enumerate({"train": rows, "validation": rows // 4}.items()):
        planted_rows(count, seed).write_parquet(folder / f"{split}.parquet")
        tables[f"examples/{split}"] = [str(folder / f"{split}.parquet")]
    return tables


def publish_features(lake: Lake, rows: int = 4096) -> Manifest:
    """A manifest as `features` publishes it, as far as the planted recipe reads it."""
    examples, schema = (lake.writer("features", "planted", name, "0") for name in ("examples", "schema"))
    for seed, (split, count) in enumerate({"train": rows, "validation": rows // 4}.items()):
        examples.parquet(f"{split}.parquet", planted_rows(count, seed), partition=split)
    empty: tuple[str, ...] = ()
    fields = dict.fromkeys(("heads", "actions", "item_numeric", "candidate_numeric", "user_numeric"), empty)
    service = FeatureSchema("planted_v1", **fields, categorical=empty, crosses=empty)
    schema.bytes("schema.json", service.to_json().encode())
    outputs = {"examples": examples.output(), "schema": schema.output()}
    return lake.publish(
        Manifest(
            step="features",
            version=1,
            key="planted",
            created_at=datetime.now(UTC),
            outputs=outputs,
            metrics={"vectors": "planted-vectors", "as_of": "2024-04-01"},
        )
    )


@dataclass(frozen=True)
class PlantedConfig:
    batch_size: int = 64
    lr: float = 0.05
    epochs: int = 3
    patience: int | None = None
    dropout: float = 0.1

    @classmethod
    def debug(cls) -> PlantedConfig:
        return cls(epochs=2)


@dataclass
class PlantedBatch:
    x: Tensor
    label: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> PlantedBatch:
        return PlantedBatch(self.x.to(device, non_blocking=non_blocking), self.label.to(device))

    def pin_memory(self) -> PlantedBatch:
        return PlantedBatch(self.x.pin_memory(), self.label.pin_memory())


class PlantedSource(BatchSource[PlantedBatch]):
    """Batch b of an epoch is global batch b, of which each rank takes its share."""

    def __init__(self, files: list[str], batch_size: int, seed: int, rank: Rank) -> None:
        frame = pl.read_parquet(files)
        self.x = frame.drop("label").to_torch(dtype=pl.Float32)
        self.label = frame["label"].to_torch()
        self.batch_size, self.seed, self.rank = batch_size, seed, rank
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.offset = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "offset": self.offset}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.offset = state["epoch"], state["offset"]

    @property
    def batches_per_epoch(self) -> int:
        return len(self.label) // self.batch_size

    def __iter__(self) -> Iterator[PlantedBatch]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.label))
        share = self.batch_size // self.rank.world
        while self.offset < self.batches_per_epoch:
            begin = self.offset * self.batch_size + self.rank.rank * share
            rows = order[begin : begin + share]
            self.offset += 1
            yield PlantedBatch(self.x[rows], self.label[rows])


class PlantedRecipe(Recipe[PlantedBatch]):
    name = "planted"
    config_type = PlantedConfig

    def build_model(self) -> nn.Module:
        # Batch norm and dropout: buffers and random state that a checkpoint must carry.
        return nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Dropout(self.config.dropout), nn.Linear(WIDTH, 1))

    def optimizations(self, model: nn.Module, total_steps: int) -> list[Optimization]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.config.lr)
        return [Optimization(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps))]

    def train_batches(self, rank: Rank) -> PlantedSource:
        files = self.inputs.files("examples/train")
        return PlantedSource(files, self.config.batch_size, self.inputs.seed, rank)

    def validation_batches(self, rank: Rank) -> Iterator[PlantedBatch]:
        source = PlantedSource(self.inputs.files("examples/validation"), 128, 0, Rank())
        for i, batch in enumerate(source):
            if i % rank.world == rank.rank:
                yield batch

    def loss(self, model: nn.Module, batch: PlantedBatch) -> tuple[Tensor, dict[str, float]]:
        logits = model(batch.x).squeeze(1)
        accuracy = ((logits > 0) == (batch.label > 0)).float().mean()
        return nn.functional.binary_cross_entropy_with_logits(logits, batch.label), {"accuracy": float(accuracy)}

    @torch.no_grad()
    def measure(self, model: nn.Module, batch: PlantedBatch) -> Sums:
        logits = model(batch.x).squeeze(1).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, batch.label, reduction="sum")
        right = ((logits > 0) == (batch.label > 0)).sum()
        return {"loss": (float(loss), len(logits)), "accuracy": (float(right), len(logits))}

    def export(self, model: nn.Module, folder: Path) -> None:
        save_file(model.state_dict(), folder / "model.safetensors")
        (folder / "artifact.json").write_text(json.dumps({"recipe": self.name}))


def planted(tables: dict[str, list[str]], seed: int = 0, **config: Any) -> PlantedRecipe:
    return PlantedRecipe(PlantedConfig(**config), RecipeInputs(CONTRACT, tables, seed=seed))
