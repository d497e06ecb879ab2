"""PinSage on a generated graph: all items layer by layer against the minibatch way, and batches made ahead or not.

The graph has topics, boards with strays and neighbourhoods from random walks. Both ways of embedding give the same
vectors. Minibatches are as large as the training batch; a few are timed, since all of them do alike. The goal is for
the paper's two layers and 50 neighbours: with one layer, as by default, nothing is convolved twice. Training runs the
platform's own loop, with its prefetching thread and without, in turns; the best round of each is compared.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks._report import Figure, exit_code
from components.contract import Contract
from components.generator.boards import PlantedBoards, planted_boards
from components.graph.bipartite import BipartiteGraph
from components.graph.walks import WalkConfig, Walker
from components.history.items import ItemTable
from components.history.keys import keys
from components.models.pinsage.inference import embed
from components.models.pinsage.model import PinSage
from components.models.pinsage.recipe import PinSageRecipe
from components.models.pinsage.subgraph import SubgraphBuilder
from components.recipe import Rank, RecipeInputs, configure
from pinloom.training.local import run_local
from pinloom.training.loop import LoopOptions


@dataclass(frozen=True)
class Size:
    topics: int
    per_topic: int
    boards: int
    steps: int
    rounds: int
    minibatches: int
    batch: int


SIZES = {True: Size(200, 50, 10_000, 6, 1, 2, 256), False: Size(1000, 100, 100_000, 20, 3, 4, 2048)}
PAIRS = 200_000


class Measured(PinSageRecipe):
    """One epoch, without validation of its own."""

    @property
    def epochs(self) -> int:
        return 1

    def validation_batches(self, rank: Rank) -> Iterator[Any]:
        yield next(super().validation_batches(rank))


def inputs_of(planted: PlantedBoards, folder: Path) -> RecipeInputs:
    """What the steps would have published."""
    n = len(planted.topic)
    graph = BipartiteGraph.from_edges(planted.items, planted.boards, n_items=n, n_boards=int(planted.boards.max()) + 1)
    walked = Walker(graph, WalkConfig(walks=64, length=8)).walk()
    _items(planted.vectors).save(folder / "items")
    graph.save(folder / "graph")
    walked.neighbourhoods.save(folder / "neighbourhoods")
    (folder / "band").mkdir()
    np.save(folder / "band" / "band.npy", walked.band)
    weights = np.ones(len(planted.query), np.float32)
    pairs = pl.DataFrame({"query": planted.query, "positive": planted.positive, "weight": weights})
    pairs.write_parquet(folder / "pairs.parquet", row_group_size=20_000)
    outputs = ("items", "graph", "neighbourhoods", "band")
    tables = {name: [str(p) for p in (folder / name).iterdir()] for name in outputs}
    tables |= {f"pairs/{split}": [str(folder / "pairs.parquet")] for split in ("train", "validation")}
    splits = {"burn_in": "2018-01-01", "validation": "2018-02-01", "test": "2018-02-15", "end": "2018-03-01"}
    contract = {"name": "generated", "actions": [{"name": "save", "role": "positive"}], "ties": "ordered"}
    return RecipeInputs(Contract.model_validate({**contract, "splits": splits}), tables)


def _items(vectors: np.ndarray) -> ItemTable:
    n = len(vectors)
    ids = ["", *(f"i{k:07d}" for k in range(1, n))]
    labels = pl.DataFrame({"row": np.arange(n), "item_id": ids, "category": "", "title": ""})
    return ItemTable(
        keys=np.where(np.arange(n) == 0, -1, keys(ids)),
        vectors=vectors,
        categorical=np.zeros((n, 0), np.int32),
        hash=np.arange(n, dtype=np.int32),
        numeric=np.zeros((n, 1), np.float32),
        labels=labels.with_columns(created_at=pl.lit(None, pl.Datetime("us", "UTC"))),
    )


def embedding(recipe: PinSageRecipe, minibatches: int) -> tuple[str, float]:
    """What the model is, and its items per second, layer by layer over minibatch."""
    torch.manual_seed(0)
    model = recipe.build_model().eval()
    assert isinstance(model, PinSage)
    embed(model, recipe.catalogue)  # compiles
    began = time.perf_counter()
    vectors = embed(model, recipe.catalogue)
    layer_wise = len(vectors) / (time.perf_counter() - began)
    builder, batch = SubgraphBuilder(recipe.catalogue, recipe.config.layers), recipe.config.batch
    drawn = np.random.default_rng(0).permutation(np.arange(1, len(vectors), dtype=np.int32))
    speeds = []
    for i in range(minibatches + 1):
        rows = drawn[i * batch : (i + 1) * batch]
        began = time.perf_counter()
        graph, nodes = builder.build(rows)
        with torch.no_grad():
            found = model(graph)[torch.from_numpy(nodes).long()]
        speeds.append(len(rows) / (time.perf_counter() - began))
        assert np.allclose(found.numpy(), vectors[rows], atol=1e-5)
    shape = f"K = {recipe.config.layers}, T = {recipe.config.neighbours}"
    # The first one compiles.
    return f"{shape}: items/s layer by layer over minibatch", layer_wise / median(speeds[1:])


def training(inputs: RecipeInputs, overrides: dict[str, Any], size: Size, folder: Path) -> list[Figure]:
    """Steps per second with batches made ahead over without, and the share of waiting."""
    found: dict[int, list[tuple[float, float]]] = {4: [], 0: []}
    for number, prefetch in enumerate([0, *[4, 0] * size.rounds]):
        recipe = configure(Measured, inputs, overrides=overrides)
        run = run_local(recipe, folder / f"{number}", LoopOptions(prefetch=prefetch))
        if number > 0:  # the first one compiles
            found[prefetch].append((run.step / (run.work_s + run.wait_s), run.data_wait_share))
    ratio = max(s for s, _ in found[4]) / max(s for s, _ in found[0])
    waited, alone = (min(w for _, w in found[p]) for p in (4, 0))
    return [
        Figure("steps/s with batches made ahead over without", ratio, 1.0, "> 1", ratio > 1),
        Figure("share of time that the trainer waits", waited, alone, "< 0.1", waited < 0.1),
    ]


def figures(size: Size) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="pinloom-benchmark-") as folder:
        rng = np.random.default_rng(0)
        planted = planted_boards(
            rng, topics=size.topics, per_topic=size.per_topic, boards=size.boards, per_board=12, pairs=PAIRS
        )
        inputs = inputs_of(planted, Path(folder))
        overrides = {"steps_per_epoch": size.steps, "validation_pairs": 1000, "compact_by": "trained"}
        overrides |= {"batch": size.batch, "reference_batch": size.batch}
        for shape, goal in (({"layers": 2, "neighbours": 50}, 5.0), ({}, None)):
            recipe = configure(Measured, inputs, overrides={**overrides, **shape})
            name, ratio = embedding(recipe, size.minibatches)  # type: ignore[arg-type]
            yield Figure(name, ratio, 1.0, f">= {goal:g}" if goal else "reported", goal is None or ratio >= goal)
        yield from training(inputs, overrides, size, Path(folder))


def main() -> int:
    return exit_code(__doc__, lambda quick: figures(SIZES[quick]))


if __name__ == "__main__":
    sys.exit(main())
