"""Training fed from Parquet against the same steps with their batches in memory: what do the data cost?

A generated log goes through ingest, validate and features; TransAct's default model trains on it in this process with
the loop's own prefetching. The rival takes exactly the same batches, made before the clock starts. Both are measured
in turns; the best round of each is compared, since whatever else the machine does only slows a round down.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._report import Figure, exit_code
from components.models.transact.recipe import TransActRecipe
from components.recipe import BatchSource, Rank
from pinloom.datasets import load_dataset
from pinloom.datasets.synthetic import generate
from pinloom.settings import Settings, TrainingSettings
from pinloom.steps.job import open_lake, run_job
from pinloom.training.distributed import loop_options
from pinloom.training.job import RecipeJob
from pinloom.training.local import run_local


@dataclass(frozen=True)
class Size:
    actions: int
    steps: int
    rounds: int


SIZES = {True: Size(actions=60_000, steps=10, rounds=2), False: Size(actions=1_000_000, steps=60, rounds=4)}


class FirstBatches(BatchSource[Any]):
    """The first `steps` batches of the epoch, so that every measurement does the same work."""

    def __init__(self, source: BatchSource[Any], steps: int) -> None:
        self.source, self.steps = source, steps

    def __iter__(self) -> Iterator[Any]:
        for _, batch in zip(range(self.steps), self.source, strict=False):
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return self.source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.source.load_state_dict(state)

    def set_epoch(self, epoch: int) -> None:
        self.source.set_epoch(epoch)

    @property
    def batches_per_epoch(self) -> int:
        return min(self.steps, self.source.batches_per_epoch)


class InMemory(FirstBatches):
    """The same batches, made once."""

    @cached_property
    def batches(self) -> list[Any]:
        return list(super().__iter__())

    def __iter__(self) -> Iterator[Any]:
        yield from self.batches


class Measured(TransActRecipe):
    """One epoch of `steps` batches, one batch of validation."""

    steps: int
    in_memory: bool = False

    @property
    def epochs(self) -> int:
        return 1

    def train_batches(self, rank: Rank) -> Any:
        source = super().train_batches(rank)
        if not self.in_memory:
            return FirstBatches(source, self.steps)
        memory = InMemory(source, self.steps)
        assert memory.batches
        return memory

    def validation_batches(self, rank: Rank) -> Iterator[Any]:
        yield next(iter(super().validation_batches(rank)))


def measure(job: RecipeJob, size: Size, folder: Path, *, in_memory: bool) -> tuple[float, float]:
    """Steps per second and the share of time spent waiting for data."""
    recipe = job()
    assert isinstance(recipe, Measured)
    recipe.steps, recipe.in_memory = size.steps, in_memory
    run = run_local(recipe, folder, loop_options(TrainingSettings()))
    return run.step / (run.work_s + run.wait_s), run.data_wait_share


def features_of_a_generated_log(home: Path, actions: int) -> RecipeJob:
    dataset = str(generate(actions, home / "log")["dataset"])
    settings = Settings(home=home, dataset=dataset)
    uris = run_job(["ingest", "validate", "features"], dataset=dataset, settings=settings)["manifests"]
    lake = open_lake(settings, load_dataset(dataset).name)
    return RecipeJob(Measured, load_dataset(dataset).contract, lake.manifest(uris["features"]), lake.root)


def figures(size: Size) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="pinloom-benchmark-") as name:
        home = Path(name)
        job = features_of_a_generated_log(home, size.actions)
        kinds = [("parquet", False), ("memory", True)] * size.rounds
        measured = [
            (kind, *measure(job, size, home / f"run-{i}", in_memory=in_memory))
            for i, (kind, in_memory) in enumerate(kinds)
        ]
    speed = {kind: max(s for k, s, _ in measured if k == kind) for kind in ("parquet", "memory")}
    waited = median(w for k, _, w in measured if k == "parquet")
    ratio = speed["parquet"] / speed["memory"]
    return [
        Figure("steps/s from Parquet over steps/s from memory", ratio, 1.0, ">= 0.95", ratio >= 0.95),
        Figure("share of time spent waiting for data", waited, None, "< 0.05", waited < 0.05),
    ]


def main() -> int:
    return exit_code(__doc__, lambda quick: figures(SIZES[quick]))


if __name__ == "__main__":
    sys.exit(main())
