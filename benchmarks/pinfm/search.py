"""Pretraining configurations of PinFM compared on the validation moments of a lake that has features.

One JSON line per configuration goes to `--out`; those that are there already are not trained again. What counts without
learning is asked the same and comes first (`--rivals`). Nothing of the test split is read.
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
from pathlib import Path
from typing import Any

from components.models.pinfm.recipe import PinFMRecipe
from pinloom.datasets import load_dataset
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configurations", type=Path, help='JSON lines: {"name": …, "overrides": {…}, "seed": …}')
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are added to this file")
    parser.add_argument("--keep", type=Path, help="folder for the artifacts, one folder each by name")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    os.environ.setdefault("TQDM_DISABLE", "1")
    done = [json.loads(line)["name"] for line in args.out.read_text().splitlines()] if args.out.exists() else []
    for line in args.configurations.read_text().splitlines():
        wanted = json.loads(line)
        if wanted["name"] in done:
            continue
        with tempfile.TemporaryDirectory(prefix="pinfm-search-") as name:
            found = trained(wanted, Path(name))
            if args.keep:
                shutil.copytree(Path(name) / "checkpoint" / "artifact", args.keep / wanted["name"])
        with args.out.open("a") as out:
            out.write(json.dumps({**wanted, **found}) + "\n")
        print(wanted["name"], found["validation"], f"{found['seconds']:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
