"""`graph`: items and boards as CSR both ways as of a date, and the positive pairs of every split."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tqdm import tqdm

from components.contract import midnight
from components.errors import UserError
from components.graph.build import Counts, GraphBuilder, Pruning
from components.history.items import ItemTable
from pinloom.graph.edges import EdgeSource
from pinloom.graph.pairs import SPLITS, by_split, pairs_of_log
from pinloom.steps.base import Params, Step, StepContext, World, snapshot_day, validation_day


class GraphParams(Params):
    """
    Attributes:
        until: no edge at or after this midnight. 'splits': the first day of the validation split, so that what is
            learned from the graph can be evaluated, or of the training requests where the features name one
            (`train_start`), so that vectors do not know what rankers learn to predict; 'features': the day of the
            features, so that all is used.
    """

    until: date | Literal["splits", "features"] = "splits"


def complete(params: GraphParams, world: World) -> GraphParams:
    if isinstance(params.until, date):
        return params
    features = world.input("features", params)
    day = snapshot_day(features)
    if params.until == "splits":
        named = features.params.get("train_start")
        day = date.fromisoformat(named) if named else validation_day(world.spec, day)
    return params.model_copy(update={"until": day})


def run(ctx: StepContext) -> None:
    items = ItemTable.load(_local_files(ctx, "features", "items"))
    counts = _build(ctx, items)
    _pairs(ctx, items)
    ctx.metrics |= {"until": ctx.params.until.isoformat(), "items": len(items) - 1, **asdict(counts)}


def _local_files(ctx: StepContext, input_name: str, output: str) -> dict[str, str]:
    """Local paths of the files of an input's output, by file name."""
    uris = ctx.input(input_name).output(output).uris
    return {uri.rsplit("/", 1)[-1]: str(ctx.lake.local_path(uri)) for uri in uris}


def _build(ctx: StepContext, items: ItemTable) -> Counts:
    source = EdgeSource(ctx.lake, ctx.input("actions"), ctx.spec, items.ids, midnight(ctx.params.until))
    pruning = Pruning(**ctx.spec.graph.pruning.model_dump())
    folder = ctx.scratch / "graph"
    builder = GraphBuilder(folder, _categories(items), source.expected(), pruning)
    unknown = undated = 0
    for edges in tqdm(source, unit="piece", desc="graph: edges"):
        builder.add(edges.items, edges.boards, edges.weights)
        unknown += int((edges.items == 0).sum())
        undated += edges.undated
    counts = builder.finish()
    if not counts.edges:
        raise UserError(
            f"no edges before {ctx.params.until}: {counts.edges_read:,} were read, none is left",
            "give a later `until`, or loosen graph.pruning and graph.edges of the data set",
        )
    for path in sorted(folder.iterdir()):
        ctx.output("graph").upload(path)
    ctx.metrics |= {"edges_of_unknown_items": unknown, "edges_undated": undated}
    return counts


def _categories(items: ItemTable) -> NDArray[np.int32]:
    """A number for each item's category, int32 [N], 0 = none."""
    ranked = items.category.rank("dense").fill_null(0)
    codes: NDArray[np.int32] = ranked.cast(pl.Int32).to_numpy()
    return codes


def _pairs(ctx: StepContext, items: ItemTable) -> None:
    rows: dict[str, int] = dict.fromkeys(SPLITS, 0)
    found = pairs_of_log(ctx.lake, ctx.input("actions"), ctx.spec, items.ids, ctx.scratch / "saved")
    for number, pairs in enumerate(tqdm(found, unit="part", desc="graph: pairs")):
        for split, part in by_split(pairs, ctx.spec.contract):
            if part.height:
                ctx.output("pairs").parquet(f"{split}-{number:05d}.parquet", part, partition=split)
                rows[split] += part.height
    if not rows["train"]:
        declared: dict[str, Any] = ctx.spec.graph.pairs.model_dump()
        raise UserError(
            f"no positive pairs in the training split ({declared})",
            "widen graph.pairs.window_hours of the data set, or name other actions",
        )
    ctx.metrics |= {f"pairs_{split}": n for split, n in rows.items()} | {"pairs_of": ctx.spec.graph.pairs.source}


STEP = Step(
    name="graph",
    version=2,
    run=run,
    params=GraphParams,
    complete=complete,
    inputs={"features": "features", "actions": "actions"},
    reads=("contract", "graph"),
    advances="graph",
)
