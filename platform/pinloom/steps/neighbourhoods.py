"""`neighbourhoods`: random walks from every item, its most visited items, and a band of ranks for hard negatives."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from tqdm import tqdm

from components.graph.bipartite import BipartiteGraph
from components.graph.walks import WalkConfig, Walker
from pinloom.steps.base import Params, Step, StepContext
from pinloom.steps.graph import local_files

SHARD = 100_000
"""Items walked from at once."""


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


def run(ctx: StepContext) -> None:
    graph = BipartiteGraph.load(local_files(ctx, "graph", "graph"))
    walker = Walker(graph, WalkConfig(**ctx.params.model_dump()))
    files = {name: _array(ctx, name, graph.items, walker.config) for name in WIDTHS}
    reached, hops = np.zeros(graph.items, np.int32), 0
    for first in tqdm(range(0, graph.items, SHARD), unit="shard", desc="neighbourhoods"):
        part = slice(first, min(first + SHARD, graph.items))
        walked = walker.walk(np.arange(part.start, part.stop, dtype=np.int32))
        near = walked.neighbourhoods
        files["rows"][part], files["weights"][part], files["band"][part] = near.rows, near.weights, walked.band
        reached[part] = walked.reached
        hops += int(walked.hops.sum(dtype=np.int64))
    for name, array in files.items():
        array.flush()
        output = "band" if name == "band" else "neighbourhoods"
        ctx.output(output).upload(ctx.scratch / f"{name}.npy", rows=graph.items)
    ctx.metrics |= _summary(reached, ctx.params.top) | {"hops": hops}


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
