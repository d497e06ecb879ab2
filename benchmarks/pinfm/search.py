"""Pretraining configurations of PinFM compared on the validation moments of a lake that has features.

One JSON line per configuration goes to `--out`; those that are there already are not trained again. What counts without
learning is asked the same first, one line each. Nothing of the test split is read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._search import Line, search
from components.evaluation.next_items import recall, reciprocal_rank
from components.models.pinfm.recipe import HITS, PinFMRecipe
from pinloom.datasets import load_dataset
from pinloom.evaluation.sequence import rivals_of
from pinloom.lake import Lake
from pinloom.settings import get_settings
from pinloom.steps.job import open_lake
from pinloom.training.job import RecipeJob
from pinloom.training.local import run_local
from pinloom.training.loop import LoopOptions


def job_of(overrides: dict[str, Any], seed: int) -> RecipeJob:
    """The recipe on the features that the lake's pointer names."""
    settings = get_settings()
    spec = load_dataset(settings.dataset)
    lake = open_lake(settings, spec.name)
    features = lake.require("features")
    return RecipeJob(PinFMRecipe, spec.contract, features, lake.root, overrides=overrides, seed=seed)


def trained(wanted: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train one configuration in this process. Its validation measures."""
    began = time.perf_counter()
    run = run_local(job_of(wanted["overrides"], wanted.get("seed", 0))(), folder, LoopOptions())
    curve = [p["validation/recall@10"] for p in run.curve if "validation/recall@10" in p]
    return {
        "validation": {name: round(value, 5) for name, value in run.metrics.items()},
        "curve": [round(v, 4) for v in curve],
        "best_epoch": run.best_epoch,
        "steps": run.step,
        "data_wait_share": round(run.data_wait_share, 4),
        "seconds": round(time.perf_counter() - began, 1),
    }


def rivals() -> Iterator[Line]:
    """Validation measures of what does not learn, for the questions of the default configuration."""
    job = job_of({}, 0)
    recipe = job()
    assert isinstance(recipe, PinFMRecipe)
    lake, contract = Lake(job.lake_root), job.contract
    questions = recipe.questions
    found = rivals_of(lake, job.features, contract, "validation", questions, recipe.items)
    for name, scorer in found.scorers().items():
        asked = questions.places(scorer), questions.question_P, len(questions)
        values = {**{f"recall@{k}": recall(*asked, k) for k in HITS}, "mrr": reciprocal_rank(*asked)}
        yield {"name": name, "validation": {metric: round(float(v.mean()), 5) for metric, v in values.items()}}


def main() -> int:
    return search(__doc__, '"seed": …', trained, lambda found: found["validation"], rivals)


if __name__ == "__main__":
    sys.exit(main())
