"""Rankers in `evaluate` and `promote`: requests of a split, ordered by the run's artifact and by its rivals."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.contract import midnight
from components.errors import UserError
from components.evaluation.baselines import TREE_ROWS, Tree
from components.evaluation.bootstrap import Bootstrap
from components.evaluation.rows import Rows
from components.models.ranker import RankerArtifact, load_ranker
from pinloom.datasets.metric import Metric
from pinloom.evaluation import gate, sequence
from pinloom.evaluation.ablation import CONTENT, rows_of, train_ablation
from pinloom.evaluation.gate import CHAMPION, Contest, Span
from pinloom.evaluation.kinds import read_curve
from pinloom.evaluation.measure import Task, plain
from pinloom.evaluation.scoring import Scores, items_as, items_for, open_artifact, open_items, open_rows, score
from pinloom.evaluation.study import NOSEQ, POPULARITY, Model, Study, chance, coverage, study
from pinloom.features.vectors import before_embedding, trained_on, version
from pinloom.lake import Lake, Manifest
from pinloom.reporting.about import About
from pinloom.reporting.rankers import page
from pinloom.steps.base import StepContext

BASE = "base"
"""Input of a run that was fine-tuned: the run of the model that it began from."""


def evaluate(ctx: StepContext) -> None:
    """A trained ranker against its rivals."""
    params = ctx.params
    rows = open_rows(ctx.lake, ctx.input("features"), params.split, params.max_requests)
    full = _full(ctx)
    boot = Bootstrap(rows.requests.height, params.resamples, params.seed, user_of=rows.user_of)
    tree = Tree.train(_tree_rows(ctx), params.seed)
    found = study(params.recipe, _models(ctx), tree, rows, full, boot, _ablations(ctx, rows))
    ctx.metrics.update(_metrics(ctx, found))
    ctx.output("scores").parquet("scores.parquet", _scores(found), partition=params.split)
    ctx.output("report").bytes("report.html", page(found, _about(ctx)).encode())


def _models(ctx: StepContext) -> dict[str, Model]:
    """The subject, and the same ranker trained without the sequence."""
    train, params = ctx.input("train"), ctx.params
    models = {params.recipe: _model(ctx, open_artifact(ctx.lake, train))}
    folder = train_ablation(ctx, train, NOSEQ, params.ablation_workers) if params.ablation else None
    if folder is not None:
        for file in sorted(folder.iterdir()):
            ctx.output("ablation").upload(file)
        models[NOSEQ] = _model(ctx, load_ranker(folder))
    return models


def _ablations(ctx: StepContext, rows: Rows) -> dict[str, Scores]:
    """Final scores of the subject with one choice changed, by row of the report."""
    params, found = ctx.params, {}
    for name in rows_of(params.recipe, params.ablations):
        folder = train_ablation(ctx, ctx.input("train"), name, params.ablation_workers)
        if folder is not None:
            model = _before(ctx, folder) if name == CONTENT else _model(ctx, load_ranker(folder))
            found[name] = model.score(rows)
    return found


def _before(ctx: StepContext, folder: Path) -> Model:
    """A ranker that was trained on the vectors that learned ones took the place of."""
    artifact, asked = load_ranker(folder), ctx.input("features")
    origin = before_embedding(ctx.lake, trained_on(ctx.lake, ctx.input("train")))
    assert origin is not None, "ablations are trained on features that there are"
    return Model(artifact, items_as(ctx.lake, artifact, origin, before_embedding(ctx.lake, asked) or asked))


def _model(ctx: StepContext, artifact: RankerArtifact) -> Model:
    return Model(artifact, items_for(ctx.lake, artifact, ctx.input("train"), ctx.input("features")))


def _tree_rows(ctx: StepContext) -> Rows:
    """Training requests enough for the tree."""
    features = ctx.input("features")
    few = open_rows(ctx.lake, features, "train", 1000)
    most = int(TREE_ROWS / max(1.0, len(few) / few.requests.height))
    return open_rows(ctx.lake, features, "train", most)


def _full(ctx: StepContext) -> Rows | None:
    """Requests of the split with everything that could have been shown, if the data set has any."""
    features, params = ctx.input("features"), ctx.params
    found = features.outputs.get("full_requests")
    if not params.full_requests or found is None or not found.partition(params.split):
        return None
    return open_rows(ctx.lake, features, params.split, params.full_requests, "full_requests")


def _about(ctx: StepContext) -> About:
    train, features = ctx.input("train"), ctx.input("features")
    read = version(trained_on(ctx.lake, train))
    return About(
        contract=ctx.spec.contract,
        split=ctx.params.split,
        items=open_items(ctx.lake, features),
        curve=read_curve(ctx.lake, train),
        lineage=[("evaluation", ctx.key), ("train", train.key), ("features", features.key), ("item vectors", read)],
        seen=span(ctx.lake, features, ctx.params.split).first <= learned(ctx.lake, train).last,
        seed=ctx.params.seed,
        boards_until=_boards_until(ctx.lake, _read(ctx.lake, train, features)),
    )


def _read(lake: Lake, train: Manifest, features: Manifest) -> Manifest:
    """The features whose item vectors a ranker reads when it is asked about `features`: `items_for` chooses alike."""
    own = trained_on(lake, train)
    return features if version(features) == version(own) else own


def _boards_until(lake: Lake, features: Manifest) -> date | None:
    """First day whose boards the item vectors of `features` do not know; None for content vectors."""
    if before_embedding(lake, features) is None:
        return None
    return date.fromisoformat(lake.manifest(features.inputs["graph"]["uri"]).metrics["until"])


def _scores(found: Study) -> pl.DataFrame:
    """One row per request and candidate: labels, the subject's heads, everybody's final score."""
    rows = found.task.rows
    heads = found.rankers[found.subject].heads
    assert heads is not None
    return pl.DataFrame(
        {
            "request_id": rows.requests["request_id"].gather(rows.owner),
            "user_id": rows.requests["user_id"].gather(rows.owner),
            "item": rows.item,
            "labels": rows.flat("labels"),
            "sampling": rows.flat("candidate_sampling"),
            **{f"probability/{h}": heads[:, i] for i, h in enumerate(found.task.heads)},
            **{f"score/{ranker}": scores.final for ranker, scores in found.rankers.items()},
        }
    )


def _metrics(ctx: StepContext, found: Study) -> dict[str, Any]:
    rows = found.task.rows
    result = {
        "split": ctx.params.split,
        "subject": found.subject,
        "requests": rows.requests.height,
        "rows": len(rows),
        "chosen": int(found.task.chosen.sum()),
        "chance": round(chance(found.task), 6),
        "headline": plain(found.headline),
        "lift": plain(found.lift),
        "heads": plain(found.heads),
        "matched": plain(found.matched),
        "full": plain(found.full),
        "full_candidates": round(found.full_size, 1),
        "ablations": plain(found.ablations),
        "ablation_lift": plain(found.ablation_lift),
        "ablation_slices": plain({s.name: s.found for s in found.ablation_slices}),
        "slices": plain({s.name: s.found for s in found.slices}),
        "slice_chosen": {s.name: s.count for s in found.slices},
        "diversity": plain(found.diversity),
        "coverage": coverage(found),
    }
    return result


def contest(ctx: StepContext, challenger: Manifest, champion: Manifest | None) -> Contest:
    """The challenger's scores against popularity's, or the champion's on the same rows."""
    evaluated = ctx.input("evaluate")
    features = ctx.lake.manifest(evaluated.inputs["features"]["uri"])
    split = evaluated.params["split"]
    asked, later = span(ctx.lake, features, split), "give the features of later days to `evaluate`"
    for who, train in (("the challenger", challenger), ("the champion", champion)):
        if train is not None:
            gate.refuse_seen(split, asked, who, learned(ctx.lake, train), later)
            _refuse_known_boards(ctx.lake, trained_on(ctx.lake, train), split, asked, who)
            _refuse_known_boards(ctx.lake, _read(ctx.lake, train, features), split, asked, who)
    rows = open_rows(ctx.lake, features, split, evaluated.params["max_requests"])
    scored = _evaluated_scores(ctx, rows.requests["request_id"].gather(rows.owner))
    task = Task(rows, open_artifact(ctx.lake, challenger).utilities)
    ours = Scores(scored[f"score/{evaluated.params['recipe']}"].to_numpy(), _heads(scored, task))
    names = _gate_metrics(task, ctx.spec.promotion.metric)
    if champion is None:
        return Contest(task, ours, Scores(scored[f"score/{POPULARITY}"].to_numpy()), POPULARITY, names)
    kept = open_artifact(ctx.lake, champion)
    theirs = score(kept, rows, items_for(ctx.lake, kept, champion, features))
    return Contest(task, ours, theirs, CHAMPION, names)


def _refuse_known_boards(lake: Lake, features: Manifest, split: str, asked: Span, who: str) -> None:
    """Where boards are what was chosen, item vectors that know the split's boards know its answers.

    Raises:
        UserError: the vectors come from a graph with boards of the split.
    """
    until = _boards_until(lake, features)
    if until is not None and midnight(until) > asked.first:
        raise UserError(
            f"the item vectors of {who} ({features.uri}) know boards up to {until}, those of the {split} split "
            f"({asked}) too",
            "embed for training and judging on the graph before the splits (`pinloom step graph neighbourhoods embed`, "
            "until=splits, the default), train and evaluate on that; a later graph is for serving",
        )


def span(lake: Lake, features: Manifest, *splits: str) -> Span:
    """First and last moment of the requests of some splits."""
    uris = [u for s in splits for u in features.output("examples").partition(s)]
    scan = pl.scan_parquet([lake.local_path(u) for u in uris]).select(
        first=pl.col("timestamp").min(), last=pl.col("timestamp").max()
    )
    return Span(*scan.collect().row(0))


def learned(lake: Lake, train: Manifest) -> Span:
    """Of everything that a run learned from or was stopped by, and the base that it began from, if it did."""
    own = span(lake, lake.manifest(train.inputs["features"]["uri"]), "train", "validation")
    if BASE not in train.inputs:
        return own
    base = sequence.learned(lake, lake.manifest(train.inputs[BASE]["uri"]))
    return Span(min(own.first, base.first), max(own.last, base.last))


def _evaluated_scores(ctx: StepContext, request_ids: pl.Series) -> pl.DataFrame:
    """What `evaluate` scored, of the same rows in the same order."""
    paths = ctx.lake.local_paths(ctx.input("evaluate").output("scores"))
    scored = pl.read_parquet(paths)
    assert scored["request_id"].equals(request_ids), "evaluate and promote read different rows"
    return scored


def _heads(scored: pl.DataFrame, task: Task) -> NDArray[np.float32]:
    return scored.select([f"probability/{h}" for h in task.heads]).to_numpy()


def _gate_metrics(task: Task, chosen: str) -> list[str]:
    """The gate's metric, then the hits of every head that happened, to be read beside it."""
    Metric.parse(chosen, task.heads)
    happened = [h for i, h in enumerate(task.heads) if task.rows.labels[:, i].any()]
    beside = ["hit@3", *(f"hit@3/{h}" for h in happened), "mrr"]
    return [chosen, *(m for m in beside if m != chosen)]
