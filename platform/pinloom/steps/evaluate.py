"""`evaluate`: a trained ranker against its rivals on one split, as numbers, scores and one HTML page."""

from __future__ import annotations

import json
from typing import Any, Literal

import polars as pl
from pydantic import Field

from components.evaluation.baselines import TREE_ROWS, Tree
from components.evaluation.bootstrap import Bootstrap
from components.evaluation.rows import Rows
from components.models.ranker import RankerArtifact, load_ranker
from pinloom.evaluation import gate
from pinloom.evaluation.ablation import rows_of, train_ablation
from pinloom.evaluation.measure import plain
from pinloom.evaluation.scoring import Scores, items_for, open_artifact, open_items, open_rows
from pinloom.evaluation.study import NOSEQ, Model, Study, chance, coverage, study
from pinloom.reporting.evaluation import About, page
from pinloom.steps.base import Params, Step, StepContext


class EvaluateParams(Params):
    """
    Attributes:
        max_requests: of the split at most; those with the lowest hash of their id.
        full_requests: requests ranked over everything that could have been shown, at most.
        ablation: train the same ranker without its sequence and compare.
        ablations: further rows of the report: names of the recipe's ablations, or 'all'. Each is trained alike.
        ablation_workers: of Ray Train for them; 0 = in this process.
        resamples: of the bootstrap.
    """

    recipe: str = "transact"
    split: Literal["validation", "test"] = "test"
    max_requests: int | None = Field(default=None, ge=1)
    full_requests: int = Field(default=500, ge=0)
    ablation: bool = True
    ablations: tuple[str, ...] = ()
    ablation_workers: int = Field(default=0, ge=0)
    resamples: int = Field(default=1000, ge=10)
    seed: int = 0


def run(ctx: StepContext) -> None:
    params: EvaluateParams = ctx.params
    features = ctx.input("features")
    rows = open_rows(ctx.lake, features, params.split, params.max_requests)
    full = _full(ctx)
    boot = Bootstrap(rows.requests.height, params.resamples, params.seed)
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
            found[name] = _model(ctx, load_ranker(folder)).score(rows)
    return found


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
    lines = ctx.lake.read_bytes(train.file("curves", "curves.jsonl")).decode().splitlines()
    return About(
        contract=ctx.spec.contract,
        split=ctx.params.split,
        items=open_items(ctx.lake, features),
        curve=[json.loads(line) for line in lines],
        lineage=[("evaluation", ctx.key), ("train", train.key), ("features", features.key)],
        seen=gate.seen(ctx.lake, features, ctx.params.split, train),
        seed=ctx.params.seed,
    )


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
        "slices": plain({s.name: s.found for s in found.slices}),
        "slice_chosen": {s.name: s.chosen for s in found.slices},
        "diversity": plain(found.diversity),
        "coverage": coverage(found),
    }
    return result


STEP = Step(
    name="evaluate",
    version=1,
    run=run,
    params=EvaluateParams,
    inputs={"train": "runs/{recipe}", "features": "features"},
    reads=("contract",),
    advances="evaluations/{recipe}",
)
