"""Pretraining configurations of PinFM compared on the validation moments of a lake that has features.

One JSON line per configuration goes to `--out`; those that are there already are not trained again. What counts without
learning is asked the same first, one line each. Nothing of the test split is read.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def rivals() -> Iterator[tuple[str, dict[str, float]]]:
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
        yield name, {metric: round(float(v.mean()), 5) for metric, v in values.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configurations", type=Path, help='JSON lines: {"name": …, "overrides": {…}, "seed": …}')
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are added to this file")
    parser.add_argument("--keep", type=Path, help="folder for the artifacts, one folder each by name")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    os.environ.setdefault("TQDM_DISABLE", "1")
    done = [json.loads(line)["name"] for line in args.out.read_text().splitlines()] if args.out.exists() else []
    for name, measures in rivals() if not done else ():
        with args.out.open("a") as out:
            out.write(json.dumps({"name": name, "validation": measures}) + "\n")
        print(name, measures, flush=True)
    for line in args.configurations.read_text().splitlines():
        wanted = json.loads(line)
        if wanted["name"] in done:
            continue
        with tempfile.TemporaryDirectory(prefix="pinfm-search-") as folder:
            found = trained(wanted, Path(folder))
            if args.keep:
                shutil.copytree(Path(folder) / "checkpoint" / "artifact", args.keep / wanted["name"])
        with args.out.open("a") as out:
            out.write(json.dumps({**wanted, **found}) + "\n")
        print(wanted["name"], found["validation"], f"{found['seconds']:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
