"""Models of sequences in `evaluate` and `promote`: moments of a split, and what users then choose of everything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from components.contract import Contract, Role
from components.errors import UserError
from components.evaluation.next_items import Questions, Scorer, ask
from components.evaluation.next_rivals import FOLLOWED_DAYS, Log, Rivals
from components.evaluation.retrieval import Places
from components.history.items import ItemTable
from components.history.statistics import DAY
from components.models.sequence import SequenceRecipe
from components.recipe import load_recipe
from pinloom.evaluation import gate
from pinloom.evaluation.ablation import rows_of, train_ablation
from pinloom.evaluation.gate import CHAMPION, Contest, Span
from pinloom.evaluation.kinds import read_curve
from pinloom.evaluation.measure import plain
from pinloom.evaluation.next_items import GATE, METRICS, POPULARITY, NextItems, NextStudy, study
from pinloom.evaluation.scoring import open_items
from pinloom.lake import Lake, Manifest
from pinloom.reporting.about import About
from pinloom.reporting.sequence import page
from pinloom.steps.base import StepContext, snapshot_day

LATER = "give the features of later days to `evaluate`"


def evaluate(ctx: StepContext) -> None:
    """A model against what counts without learning."""
    params, features = ctx.params, ctx.input("features")
    items = open_items(ctx.lake, features)
    questions = questions_of(ctx.lake, features, ctx.spec.contract, params.split, params.max_questions)
    scorers = {params.recipe: scorer_of(ctx.lake, ctx.input("train"), questions, items)}
    scorers |= rivals_of(ctx.lake, features, ctx.spec.contract, params.split, questions, items).scorers()
    ablations = _ablations(ctx, questions, items)
    found = study(params.recipe, questions, items, scorers, ablations, params.resamples, params.seed)
    ctx.metrics.update(_metrics(ctx, found))
    ctx.output("scores").parquet("scores.parquet", _scores(found), partition=params.split)
    ctx.output("report").bytes("report.html", page(found, scorers, _about(ctx, items)).encode())


def questions_of(lake: Lake, features: Manifest, contract: Contract, split: str, most: int) -> Questions:
    """Moments of the split, always the same.

    Raises:
        UserError: nobody chose anything in it.
    """
    found = ask(_histories(lake, features), contract, _micros(contract, split), most)
    if not len(found):
        raise UserError(
            f"{features.uri} has no positive action in the {split} split",
            "ingest its days and run `pinloom step features` again",
        )
    return found


def _histories(lake: Lake, features: Manifest) -> list[str]:
    return [str(path) for path in lake.local_paths(features.output("histories"))]


def _micros(contract: Contract, split: str) -> tuple[int, int]:
    start, stop = contract.splits.interval(split)
    return round(start.timestamp() * 1e6), round(stop.timestamp() * 1e6)


def scorer_of(lake: Lake, train: Manifest, questions: Questions, items: ItemTable) -> Scorer:
    """A run's scores of all items, for the newest events before each question."""
    return _recipe(train.params["recipe"]).scorer(lake.local_folder(train.output("artifact")), questions, items)


def _recipe(name: str) -> type[SequenceRecipe[Any]]:
    found = load_recipe(name)
    assert issubclass(found, SequenceRecipe)
    return found


def rivals_of(
    lake: Lake, features: Manifest, contract: Contract, split: str, questions: Questions, items: ItemTable
) -> Rivals:
    start, stop = _micros(contract, split)
    log = Log.read(_histories(lake, features), contract, (start - FOLLOWED_DAYS * DAY, stop))
    vectors = np.asarray(items.vectors, np.float32)
    return Rivals(questions, log, start, vectors, contract.indices(Role.POSITIVE))


def _ablations(ctx: StepContext, questions: Questions, items: ItemTable) -> dict[str, Places]:
    """Places by the subject with one choice changed, by row of the report."""
    params, found = ctx.params, {}
    for name in rows_of(params.recipe, params.ablations):
        folder = train_ablation(ctx, ctx.input("train"), name, params.ablation_workers)
        if folder is not None:
            found[name] = questions.places(_recipe(params.recipe).scorer(folder, questions, items))
    return found


def _about(ctx: StepContext, items: ItemTable) -> About:
    train, params = ctx.input("train"), ctx.params
    named = {"evaluation": ctx.key, "train": train.key, "features": ctx.input("features").key}
    return About(
        contract=ctx.spec.contract,
        split=params.split,
        items=items,
        curve=read_curve(ctx.lake, train),
        lineage=list(named.items()),
        seen=ctx.spec.contract.splits.interval(params.split)[0] <= learned(ctx.lake, train).last,
        seed=params.seed,
    )


def learned(lake: Lake, train: Manifest) -> Span:
    """Of everything that a run learned from or was chosen by."""
    moments = _recipe(train.params["recipe"]).learned(lake.local_folder(train.output("artifact")))
    return Span(*(datetime.fromtimestamp(t / 1e6, UTC) for t in moments))


def _scores(found: NextStudy) -> pl.DataFrame:
    """One row per chosen item: where everybody places it."""
    asked = found.task.questions
    said = {"user": asked.user_Q[asked.question_P], "time": asked.time_Q[asked.question_P], "item": asked.item_P}
    places = {f"{part}/{who}": getattr(p, part) for who, p in found.places.items() for part in ("above", "equal")}
    return pl.DataFrame({**said, **places})


def _metrics(ctx: StepContext, found: NextStudy) -> dict[str, Any]:
    questions = found.task.questions
    return {
        "split": ctx.params.split,
        "subject": found.subject,
        "questions": len(questions),
        "users": found.boot.drawn,
        "chosen": len(questions.item_P),
        "gate": GATE,
        "headline": plain(found.headline),
        "lift": plain(found.lift),
        "ablations": plain(found.ablations),
        "ablation_lift": plain(found.ablation_lift),
        "slices": plain({s.name: s.found for s in found.slices}),
        "slice_chosen": {s.name: s.count for s in found.slices},
    }


def contest(ctx: StepContext, challenger: Manifest, champion: Manifest | None) -> Contest:
    """The challenger's places against popularity's, or the champion's for the same questions."""
    evaluated = ctx.input("evaluate")
    features = ctx.lake.manifest(evaluated.inputs["features"]["uri"])
    contract, split = ctx.spec.as_of(snapshot_day(features)).contract, evaluated.params["split"]
    questions = questions_of(ctx.lake, features, contract, split, evaluated.params["max_questions"])
    times = (datetime.fromtimestamp(t / 1e6, UTC) for t in (questions.time_Q.min(), questions.time_Q.max()))
    asked = Span(*times)
    for who, train in (("the challenger", challenger), ("the champion", champion)):
        if train is not None:
            gate.refuse_seen(split, asked, who, learned(ctx.lake, train), LATER)
    scored = pl.read_parquet(ctx.lake.local_paths(evaluated.output("scores")))
    assert np.array_equal(scored["item"], questions.item_P), "evaluate and promote read different questions"
    ours, rival, theirs = _places(scored, evaluated.params["recipe"]), POPULARITY, _places(scored, POPULARITY)
    if champion is not None:
        items = open_items(ctx.lake, features)
        rival, theirs = CHAMPION, questions.places(scorer_of(ctx.lake, champion, questions, items))
    return Contest(NextItems(questions), ours, theirs, rival, METRICS, "moments", len(questions))


def _places(scored: pl.DataFrame, who: str) -> Places:
    return Places(scored[f"above/{who}"].to_numpy(), scored[f"equal/{who}"].to_numpy())
