"""`index`: an index over the vectors that `embed` published, and how well it finds what an exact search finds."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.errors import UserError
from components.retrieval.index import VectorIndex
from pinloom.lake import Manifest
from pinloom.steps.base import Params, Step, StepContext

log = logging.getLogger("pinloom.index")

PIECE = 65_536
"""Vectors read at a time."""


class IndexParams(Params):
    """
    Attributes:
        kind: FAISS' factory string; default: by the number of items.
        recall: that an approximate search shall reach at `k`; the effort of a search is chosen for it.
        queries: items whose neighbours are searched both ways to measure it.
    """

    kind: str | None = None
    recall: float = Field(default=0.95, gt=0, le=1)
    k: int = Field(default=50, ge=1)
    queries: int = Field(default=500, ge=1)
    seed: int = 0


def run(ctx: StepContext) -> None:
    params, embedded = ctx.params, ctx.input("embed")
    vectors = _vectors(ctx, embedded)
    index = VectorIndex.build(_pieces(vectors), len(vectors), params.kind)
    if not len(index):
        raise UserError(f"no item of {embedded.uri} has a vector", "declare item features, or boards, in the data set")
    index, recall = _tuned(index, vectors, params)
    index.save(ctx.scratch)
    for file in sorted(ctx.scratch.iterdir()):
        ctx.output("index").upload(file, rows=len(index))
    ctx.output("index").adopt(tuple(f for f in embedded.output("vectors").files if f.uri.endswith("/vectors.npy")))
    ctx.output("index").adopt(tuple(f for f in embedded.output("items").files if f.uri.endswith("/keys.npy")))
    ctx.metrics |= {
        "kind": index.kind,
        "effort": None if index.is_exact else index.effort,
        "indexed": len(index),
        f"recall@{params.k}": round(recall, 4),
        "vectors": embedded.metrics["vectors"],
    }
    log.info("index: %s over %d items, recall@%d %.3f", index.kind, len(index), params.k, recall)


def _vectors(ctx: StepContext, embedded: Manifest) -> NDArray[np.float16]:
    """Full vectors of all items, mapped. fp16 [N, d]."""
    path = ctx.lake.local_path(embedded.file("vectors", "vectors.npy"))
    vectors: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return vectors


def _pieces(vectors: NDArray[np.float16]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(vectors), PIECE):
        yield vectors[start : start + PIECE].astype(np.float32)


def _tuned(index: VectorIndex, vectors: NDArray[np.float16], params: IndexParams) -> tuple[VectorIndex, float]:
    """With the least effort that reaches the recall asked for, measured against an exact search of all vectors."""
    drawn = np.random.default_rng(params.seed).choice(index.rows, min(params.queries, len(index)), replace=False)
    queries = vectors[np.sort(drawn)].astype(np.float32)
    rival = index if index.is_exact else VectorIndex.build(_pieces(vectors), len(vectors), "Flat")
    exact, _ = rival.search(queries, params.k)
    index, recall = index.tuned(queries, exact, min(params.k, len(index)), params.recall)
    if recall < params.recall:
        log.warning("index: recall@%d is %.3f, less than %.2f, with the most effort", params.k, recall, params.recall)
    return index, recall


STEP = Step(
    name="index",
    version=1,
    run=run,
    params=IndexParams,
    inputs={"embed": "embedded"},
    advances="index",
)
