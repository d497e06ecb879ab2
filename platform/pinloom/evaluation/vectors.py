"""Item vectors in `evaluate` and `promote`: held-out pairs of a split, found by nearness among all items."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from components.contract import midnight
from components.errors import UserError
from components.evaluation.bootstrap import Bootstrap
from components.evaluation.related import HeldOut, Scorer, by_vectors
from components.evaluation.retrieval import Places
from components.graph.bipartite import BipartiteGraph
from components.graph.neighbours import Neighbourhoods
from components.graph.walks import WalkConfig, Walker
from components.history.items import ItemTable
from components.models.pinsage.artifact import load_pinsage
from components.models.pinsage.catalogue import Catalogue
from components.models.pinsage.inference import embed
from components.models.pinsage.model import PinSage
from components.recipe import load_recipe
from pinloom.evaluation import gate
from pinloom.evaluation.ablation import rows_of, train_ablation
from pinloom.evaluation.gate import CHAMPION, Contest, Span
from pinloom.evaluation.kinds import read_curve
from pinloom.evaluation.measure import plain
from pinloom.evaluation.related import (
    COMPACT,
    CONTENT,
    OTHERWISE,
    POPULARITY,
    RelatedStudy,
    Scale,
    Search,
    Vectors,
    study,
)
from pinloom.evaluation.scoring import open_items
from pinloom.features.vectors import encoded_as, version
from pinloom.lake import Lake, Manifest
from pinloom.reporting.about import About
from pinloom.reporting.vectors import page
from pinloom.steps.base import StepContext

FIRST = {CONTENT: "content only", POPULARITY: "popularity"}
"""A first champion must beat the stronger of these: the vectors in whose place it is put, and one list for all."""

PROJECTION = {"compact_by"}
"""What a row changes whose short vectors are compared with the subject's."""

LATER = "train again on a graph of earlier days"


@dataclass(frozen=True)
class Tables:
    """The manifests that a run read; they share the rows of one catalogue."""

    lake: Lake
    features: Manifest
    graph: Manifest
    neighbourhoods: Manifest

    @classmethod
    def of(cls, lake: Lake, manifest: Manifest) -> Tables:
        """Those of a `train` or `evaluate` manifest."""
        named = ("features", "graph", "neighbourhoods")
        return cls(lake, *(lake.manifest(manifest.inputs[name]["uri"]) for name in named))

    def files(self, manifest: Manifest, output: str) -> dict[str, Path]:
        return {p.name: p for p in map(self.lake.local_path, manifest.output(output).uris)}

    @cached_property
    def items(self) -> ItemTable:
        return open_items(self.lake, self.features)

    @cached_property
    def bipartite(self) -> BipartiteGraph:
        return BipartiteGraph.load(self.files(self.graph, "graph"))

    @cached_property
    def catalogue(self) -> Catalogue:
        near = Neighbourhoods.load(self.files(self.neighbourhoods, "neighbourhoods"))
        band = np.load(self.files(self.neighbourhoods, "band")["band.npy"], mmap_mode="r")
        return Catalogue.build(self.items, self.bipartite.degree, near, band)

    def pairs(self, split: str) -> pl.DataFrame:
        """The pairs of a split.

        Raises:
            UserError: there are none.
        """
        uris = self.graph.output("pairs").partition(split)
        if not uris:
            had = ", ".join(self.graph.output("pairs").partitions()) or "none"
            raise UserError(
                f"{self.graph.uri} has no pairs of split '{split}' (it has: {had})",
                "ingest the split's days and run `pinloom step features graph neighbourhoods train` again",
            )
        return pl.read_parquet([self.lake.local_path(u) for u in uris])

    def span(self, *splits: str) -> Span:
        """First and last moment of the positives of some splits."""
        stamps = np.concatenate([self.pairs(s)["timestamp"].to_numpy() for s in splits])
        return Span(*(datetime.fromtimestamp(int(t) / 1e6, UTC) for t in (stamps.min(), stamps.max())))

    @property
    def until(self) -> date:
        """No edge of the graph is of this day or later."""
        return date.fromisoformat(self.graph.metrics["until"])

    @property
    def learned(self) -> Span:
        """Of all that a run on these tables learned from or was stopped by, the edges included."""
        pairs = self.span("train", *(s for s in ("validation",) if self.graph.output("pairs").partition(s)))
        return Span(pairs.first, max(pairs.last, midnight(self.until) - timedelta(microseconds=1)))


def evaluate(ctx: StepContext) -> None:
    """A run's vectors against its rivals, on the tables that it was trained on."""
    params, tables = ctx.params, Tables.of(ctx.lake, ctx.input("train"))
    search = search_of(tables, params.split, params.max_pairs, params.seed)
    vectors = _vectors(ctx, tables)
    changed = _ablations(ctx, tables, search, vectors)
    boot = Bootstrap(search.units, params.resamples, params.seed)
    found = study(params.recipe, search, tables.bipartite, tables.pairs("train"), vectors, changed, boot)
    found = replace(found, itself=_itself(ctx))
    ctx.metrics.update(_metrics(ctx, found))
    ctx.output("scores").parquet("scores.parquet", _scores(found), partition=params.split)
    ctx.output("report").bytes("report.html", page(found, _about(ctx, tables)).encode())


def search_of(tables: Tables, split: str, most: int | None = None, seed: int = 0) -> Search:
    """The question that `split` asks of whoever knows these tables.

    Raises:
        UserError: the graph has edges of the split, which may be the very thing that is asked for.
    """
    first = tables.span(split).first
    if midnight(tables.until) > first:
        raise UserError(
            f"the graph {tables.graph.key} holds edges up to {tables.until}, the {split} split begins on "
            f"{first:%Y-%m-%d}: the answers may be among them",
            f"run `pinloom step graph neighbourhoods train evaluate --param recipe=… --param until={first:%Y-%m-%d}`, "
            "or with an earlier date",
        )
    pairs = HeldOut.of(tables.pairs(split), most, seed)
    return Search(pairs, Scale.of(len(tables.items) - 1), _together(tables.graph, pairs))


def _together(graph: Manifest, pairs: HeldOut) -> bool:
    """Whether pairs lie on one board. Graphs of version 1 need not say it; in those, pairs of boards know no user."""
    return bool(graph.metrics.get("pairs_of", "boards" if pairs.unit == "queries" else "actions") == "boards")


def open_model(lake: Lake, train: Manifest) -> PinSage:
    return load_pinsage(lake.local_folder(train.output("artifact")))


def _vectors(ctx: StepContext, tables: Tables) -> dict[str, Vectors]:
    model = open_model(ctx.lake, ctx.input("train"))
    full = vectors_of(model, tables.catalogue)
    content = np.asarray(tables.items.vectors, np.float32)
    return {ctx.params.recipe: full, COMPACT: short_of(model, full), CONTENT: content}


def short_of(model: PinSage, full: Vectors) -> Vectors:
    """The vectors that rankers read, as exact as they are stored."""
    with torch.no_grad():
        return model.compact(torch.from_numpy(full)).numpy().astype(np.float16).astype(np.float32)


def vectors_of(model: PinSage, catalogue: Catalogue) -> Vectors:
    return embed(model, catalogue.as_read_by(model.config))


def _ablations(ctx: StepContext, tables: Tables, search: Search, vectors: dict[str, Vectors]) -> dict[str, Places]:
    """Places by the subject with one choice changed, by row of the report.

    Args:
        vectors: short ones of the rows that change the projection alone are added here, beside the subject's.
    """
    params, found = ctx.params, {}
    changes = load_recipe(params.recipe).ablations
    for name in rows_of(params.recipe, params.ablations):
        folder = train_ablation(ctx, ctx.input("train"), name, params.ablation_workers)
        if folder is not None:
            model = load_pinsage(folder)
            full = vectors_of(model, tables.catalogue)
            found[name] = search.pairs.places(by_vectors(full))
            if changes[name].keys() == PROJECTION:
                vectors[OTHERWISE[model.config.compact_by]] = short_of(model, full)
    return found


def _itself(ctx: StepContext) -> tuple[str, ...]:
    """Ablations that were asked for and change nothing: the subject was trained that way."""
    own = asdict(open_model(ctx.lake, ctx.input("train")).config)
    changes = load_recipe(ctx.params.recipe).ablations
    return tuple(n for n in rows_of(ctx.params.recipe, ctx.params.ablations) if own | dict(changes[n]) == own)


def _about(ctx: StepContext, tables: Tables) -> About:
    train = ctx.input("train")
    named = {"evaluation": ctx.key, **{name: ctx.input(name).key for name in ("train", *train.inputs)}}
    return About(
        contract=ctx.spec.contract,
        split=ctx.params.split,
        items=tables.items,
        curve=read_curve(ctx.lake, train),
        lineage=list(named.items()),
        seen=tables.span(ctx.params.split).first <= tables.learned.last,
        seed=ctx.params.seed,
    )


def _scores(found: RelatedStudy) -> pl.DataFrame:
    """One row per pair: rows of the item table, and how many items everybody places above it or level with it."""
    pairs = found.search.pairs
    said = {"query": pairs.query, "positive": pairs.positive, "user": pairs.user, "weight": pairs.weight}
    places = {f"{part}/{who}": getattr(p, part) for who, p in found.places.items() for part in ("above", "equal")}
    return pl.DataFrame({**said, **places})


def _metrics(ctx: StepContext, found: RelatedStudy) -> dict[str, Any]:
    search = found.search
    return {
        "split": ctx.params.split,
        "subject": found.subject,
        "pairs": len(search.pairs),
        "units": search.units,
        "unit": search.pairs.unit,
        "queries": len(np.unique(search.pairs.query)),
        "items": len(found.vectors[found.subject]) - 1,
        "ks": list(search.scale.ks),
        "mrr_scale": search.scale.mrr,
        "gate": search.scale.gate,
        "headline": plain(found.headline),
        "lift": plain(found.lift),
        "ablations": plain(found.ablations),
        "ablation_lift": plain(found.ablation_lift),
        "matched": plain(found.matched),
        "matched_pairs": found.matched_pairs,
        "slices": plain({s.name: s.found for s in found.slices}),
        "slice_pairs": {s.name: s.count for s in found.slices},
        "similarity": {
            name: {"mean": round(s.mean, 6), "deviation": round(s.deviation, 6), "kurtosis": round(s.kurtosis, 6)}
            for name, s in found.spread.items()
        },
    }


def contest(ctx: StepContext, challenger: Manifest, champion: Manifest | None) -> Contest:
    """The challenger's places against those of the champion, or of what a first one must beat, for the same pairs."""
    evaluated = ctx.input("evaluate")
    asked, tables = evaluated.params, Tables.of(ctx.lake, challenger)
    for who, train in (("the challenger", challenger), ("the champion", champion)):
        if train is not None:
            learned = Tables.of(ctx.lake, train).learned
            gate.refuse_seen(asked["split"], tables.span(asked["split"]), who, learned, LATER)
    search = search_of(tables, asked["split"], asked["max_pairs"], asked["seed"])
    scored = pl.read_parquet(ctx.lake.local_paths(evaluated.output("scores")))
    assert np.array_equal(scored["query"], search.pairs.query), "evaluate and promote read different pairs"
    ours, metric = _places(scored, asked["recipe"]), search.scale.gate
    if champion is None:
        simple = {said: _places(scored, who) for who, said in FIRST.items()}
        rival = max(simple, key=lambda said: search.statistic(metric, simple[said]).value)
        theirs = simple[rival]
    else:
        rival, theirs = CHAMPION, search.pairs.places(_as_served(champion, tables))
    names = [metric, *(n for n in search.scale.names if n != metric)]
    return Contest(search, ours, theirs, rival, names, "pairs", len(search.pairs))


def _places(scored: pl.DataFrame, who: str) -> Places:
    return Places(scored[f"above/{who}"].to_numpy(), scored[f"equal/{who}"].to_numpy())


def _as_served(train: Manifest, today: Tables) -> Scorer:
    """Scorer of an earlier run on the catalogue and graph of `today`: so `embed` would have it serve.

    Its own content vectors and its own kind of walks, made as its inputs made them; judged on its old graph it would
    lose for its age alone.

    Raises:
        UserError: it cannot read today's catalogue.
    """
    model, own = open_model(today.lake, train), Tables.of(today.lake, train)
    if model.config.id_dim and own.features.uri != today.features.uri:
        raise UserError(
            f"the model of {train.uri} has a vector for each item of the catalogue that it was trained on",
            "train it again with `id_dim=0`, or take the alias from it",
        )
    items = today.items
    if version(own.features) != version(today.features):
        items = replace(items, vectors=encoded_as(today.lake, own.features, today.features))
    near, band = today.catalogue.neighbours, today.catalogue.band
    neighbourhoods = Neighbourhoods(near, today.catalogue.weights)
    if own.neighbourhoods.params != today.neighbourhoods.params:
        walked = Walker(today.bipartite, WalkConfig(**own.neighbourhoods.params)).walk()
        neighbourhoods, band = walked.neighbourhoods, walked.band
    catalogue = Catalogue.build(items, today.bipartite.degree, neighbourhoods, band)
    return by_vectors(vectors_of(model, catalogue))
