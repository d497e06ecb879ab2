"""`neighbourhoods`: random walks from every item, its most visited items, and a band of ranks for hard negatives."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pydantic import Field
from tqdm import tqdm

from components.graph.bipartite import BipartiteGraph
from components.graph.walks import WalkConfig, Walked, Walker
from pinloom.features.buckets import map_buckets
from pinloom.lake import Lake
from pinloom.steps.base import Params, Step, StepContext

SHARD = 50_000
"""Items walked from at once; a task, where there are machines to share them."""

WIDTHS = {"rows": "top", "weights": "top", "band": "band_size"}
"""Array → parameter that says how wide it is."""


class NeighbourhoodParams(Params):
    """As `components.graph.walks.WalkConfig`."""

    top: int = Field(default=50, ge=1)
    walks: int = Field(default=128, ge=1)
    length: int = Field(default=16, ge=1)
    restart: float = Field(default=0.5, ge=0, lt=1)
    early_stop: int | None = Field(default=None, ge=1)
    band: tuple[float, float] = (0.25, 0.75)
    band_size: int = Field(default=64, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class ShardJob:
    """What a task needs to know; it maps the whole graph and walks from its items."""

    lake_root: str
    files: tuple[str, ...]
    config: WalkConfig
    shard: int


def run(ctx: StepContext) -> None:
    config = WalkConfig(**ctx.params.model_dump())
    job = ShardJob(ctx.lake.root, tuple(ctx.input("graph").output("graph").uris), config, SHARD)
    graph = open_graph(job)
    files = {name: _array(ctx, name, graph.items, config) for name in WIDTHS}
    reached, hops = np.zeros(graph.items, np.int32), 0
    shards = -(-graph.items // SHARD)
    # In this process the walks already take all cores: tasks are for other machines.
    worth = graph.edges if "RAY_ADDRESS" in os.environ else 0
    results = map_buckets(walk_shard, job, shards, worth, ctx.settings)
    for number, walked in enumerate(tqdm(results, total=shards, unit="shard", desc="neighbourhoods")):
        part = slice(number * SHARD, (number + 1) * SHARD)
        near = walked.neighbourhoods
        files["rows"][part], files["weights"][part], files["band"][part] = near.rows, near.weights, walked.band
        reached[part] = walked.reached
        hops += int(walked.hops.sum(dtype=np.int64))
    for name, array in files.items():
        array.flush()
        output = "band" if name == "band" else "neighbourhoods"
        ctx.output(output).upload(ctx.scratch / f"{name}.npy", rows=graph.items)
    ctx.metrics |= _summary(reached, config.top) | {"hops": hops}


def walk_shard(job: ShardJob, number: int) -> Walked:
    """Walk from the items of one shard."""
    walker = _walker(job, _threads())
    first = number * job.shard
    return walker.walk(np.arange(first, min(first + job.shard, walker.graph.items), dtype=np.int32))


def open_graph(job: ShardJob) -> BipartiteGraph:
    lake = Lake(job.lake_root)
    return BipartiteGraph.load({uri.rsplit("/", 1)[-1]: lake.local_path(uri) for uri in job.files})


@lru_cache(maxsize=1)
def _walker(job: ShardJob, threads: int | None) -> Walker:
    return Walker(open_graph(job), job.config, threads)


def _threads() -> int | None:
    """One in a task of Ray, which has one core; else all."""
    ray = sys.modules.get("ray")
    return 1 if ray and ray.is_initialized() and ray.get_runtime_context().get_task_id() else None


def _array(ctx: StepContext, name: str, items: int, config: WalkConfig) -> np.memmap:
    """A file of [items, width] that is filled shard by shard."""
    shape = (items, getattr(config, WIDTHS[name]))
    dtype = np.float32 if name == "weights" else np.int32
    return np.lib.format.open_memmap(ctx.scratch / f"{name}.npy", "w+", dtype, shape)


def _summary(reached: np.ndarray, top: int) -> dict[str, int | float]:
    some = reached[reached > 0]
    return {
        "items": len(reached) - 1,
        "items_with_neighbours": len(some),
        "items_with_all_neighbours": int((reached >= top).sum()),
        "median_reached": float(np.median(some)) if len(some) else 0.0,
    }


STEP = Step(
    name="neighbourhoods",
    version=1,
    run=run,
    params=NeighbourhoodParams,
    inputs={"graph": "graph"},
    advances="neighbourhoods",
)
