"""`embed`: vectors of all items by the PinSage that was promoted, on the graph of today.

Until one is promoted, the content vectors stand for them: what is not judged good enough does not reach rankers.

Publishes the features again with these vectors in the item table, so that whatever reads features can read them: every
other file is the one of the features. What was embedded before a crash is not embedded again.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field
from tqdm import tqdm

from components.errors import UserError
from components.models.pinsage.artifact import describe_pinsage
from pinloom.features.buckets import map_buckets
from pinloom.graph.embedding import EmbedJob, embed_shard
from pinloom.lake import Manifest
from pinloom.steps.base import Params, Step, StepContext

log = logging.getLogger("pinloom.embed")

REPLACED = ("items", "item_features", "encoder")
"""Outputs of the features that are not handed on as they are. There is no encoder: vectors are named by the model."""


class EmbedParams(Params):
    """
    Attributes:
        shard_items: items embedded at a time; memory is bounded by them and their neighbours.
    """

    shard_items: int = Field(default=65_536, ge=1)


def run(ctx: StepContext) -> None:
    if "train" not in ctx.inputs:
        log.info("embed: no PinSage was promoted yet; the content vectors stand for its own")
        _hand_on(ctx)
        return
    features, job = ctx.input("features"), _job(ctx)
    said = describe_pinsage(job.artifact)
    if said["vectors"] != features.metrics["vectors"]:
        raise UserError(
            f"PinSage {ctx.input('train').key} was trained on content vectors {said['vectors']}, the features "
            f"{features.key} have {features.metrics['vectors']}",
            "train it on these features, or give those that it was trained on: --input features=URI",
        )
    _embed(ctx, job)
    short = _write_vectors(ctx, job)
    _republish(ctx, features, short)
    ctx.metrics |= features.metrics | {"vectors": job.version, "content_vectors": said["vectors"], **_spread(short)}


def _hand_on(ctx: StepContext) -> None:
    """The features as they are, their content vectors as those to be indexed."""
    features = ctx.input("features")
    for name, output in features.outputs.items():
        ctx.output(name).adopt(output.files)
    ctx.output("vectors").adopt(tuple(f for f in features.output("items").files if f.uri.endswith("/vectors.npy")))
    ctx.metrics |= features.metrics


def _job(ctx: StepContext) -> EmbedJob:
    return EmbedJob(
        lake_root=ctx.lake.root,
        features=ctx.input("features").uri,
        graph=ctx.input("graph").uri,
        neighbourhoods=ctx.input("neighbourhoods").uri,
        train=ctx.input("train").uri,
        folder=_folder(ctx),
        size=ctx.params.shard_items,
    )


def _folder(ctx: StepContext) -> str:
    """Where shards lie between the layers; the same for every attempt."""
    return ctx.lake.path("data", "embed", f"{ctx.key}-shards")


def _embed(ctx: StepContext, job: EmbedJob) -> None:
    run = job.inference
    work = run.catalogue.neighbours.size
    for phase in run.phases:
        shards = map_buckets(embed_shard, (job, phase), run.count, work, ctx.settings)
        for _ in tqdm(shards, total=run.count, unit="shard", desc=f"embed: {phase[0]} {phase[1] + 1}"):
            pass


def _write_vectors(ctx: StepContext, job: EmbedJob) -> NDArray[np.float16]:
    """Full and short vectors in two precisions, shard by shard; returns the short ones, fp16 [N, 32].

    The item table holds these; only their int8 are written here.
    """
    run, model = job.inference, job.inference.model
    n, d, c = len(run.catalogue), model.config.dim, model.config.compact
    kinds = {
        "vectors": (np.float16, (n, d)),
        "int8": (np.int8, (n, d)),
        "scale": (np.float32, (n,)),
        "short_int8": (np.int8, (n, c)),
        "short_scale": (np.float32, (n,)),
    }
    paths = {name: ctx.scratch / f"{name}.npy" for name in kinds}
    files = {k: np.lib.format.open_memmap(paths[k], "w+", dtype, shape) for k, (dtype, shape) in kinds.items()}
    short = np.zeros((n, model.config.compact), np.float16)
    for shard, vectors in enumerate(run.vectors()):
        rows = slice(shard * run.size, shard * run.size + len(vectors))
        files["vectors"][rows] = vectors
        files["int8"][rows], files["scale"][rows] = quantized(vectors)
        compact = model.compact(torch.from_numpy(np.array(vectors))).numpy()
        files["short_int8"][rows], files["short_scale"][rows] = quantized(compact)
        short[rows] = compact
    for name, array in files.items():
        array.flush()
        ctx.output("vectors").upload(paths[name], rows=n)
    return short


def quantized(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 [n, d] and the scale of each row [n]: a row is about scale × its integers."""
    scale = np.abs(vectors).max(axis=1) / 127
    steps = np.divide(vectors, scale[:, None], out=np.zeros_like(vectors), where=scale[:, None] > 0)
    return np.round(steps).astype(np.int8), scale.astype(np.float32)


def _republish(ctx: StepContext, features: Manifest, short: NDArray[np.float16]) -> None:
    """All outputs of the features; only what holds vectors is written anew."""
    for name, output in features.outputs.items():
        if name not in REPLACED:
            ctx.output(name).adopt(output.files)
    kept = tuple(f for f in features.output("items").files if Path(f.uri).name != "vectors.npy")
    ctx.output("items").adopt(kept)
    with ctx.output("items").open("vectors.npy", rows=len(short)) as f:
        np.save(f, short, allow_pickle=False)
    frame = pl.read_parquet(io.BytesIO(ctx.lake.read_bytes(features.output("item_features").uris[0])))
    vectors = pl.Series("vector", short[1:].astype(np.float32)).cast(pl.List(pl.Float32))
    ctx.output("item_features").parquet("items.parquet", frame.with_columns(vectors))


def _spread(short: NDArray[np.float16]) -> dict[str, int]:
    return {"items_without_vector": int(len(short) - 1 - short[1:].any(axis=1).sum())}


def commit(ctx: StepContext, manifest: Manifest) -> None:
    """What lay between the layers is not needed any more."""
    if ctx.lake.exists(_folder(ctx)):
        ctx.lake.fs.rm(_folder(ctx), recursive=True)


STEP = Step(
    name="embed",
    version=3,
    run=run,
    params=EmbedParams,
    inputs={
        "features": "features",
        "graph": "graph",
        "neighbourhoods": "neighbourhoods",
        "train": "champions/pinsage?",
    },
    advances="embedded",
    commit=commit,
    stands_for="features",
)
