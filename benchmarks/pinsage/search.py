"""Configurations of PinSage compared on the validation pairs of a lake that has features, graph and neighbourhoods.

One JSON line per configuration goes to `--out`; those that are there already are not trained again. Nothing of the test
split is read. `--out` of several calls may be one file.
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

from components.models.pinsage.recipe import PinSageRecipe
from pinloom.datasets import load_dataset
from pinloom.settings import get_settings
from pinloom.steps.job import open_lake
from pinloom.training.job import RecipeJob
from pinloom.training.local import run_local
from pinloom.training.loop import LoopOptions


def job_of(overrides: dict[str, Any], inputs: dict[str, str]) -> RecipeJob:
    """The recipe on what the lake's pointers, or `inputs` (name → URI), name."""
    settings = get_settings()
    spec = load_dataset(settings.dataset)
    lake = open_lake(settings, spec.name)
    named = {
        name: lake.manifest(inputs[name]) if name in inputs else lake.require(name)
        for name in ("features", *PinSageRecipe.extra_inputs)
    }
    extras = tuple(named[name] for name in PinSageRecipe.extra_inputs)
    return RecipeJob(PinSageRecipe, spec.contract, named["features"], lake.root, overrides=overrides, extras=extras)


def trained(overrides: dict[str, Any], inputs: dict[str, str], folder: Path) -> dict[str, Any]:
    """Train one configuration in this process. Its validation measures."""
    began = time.perf_counter()
    run = run_local(job_of(overrides, inputs)(), folder, LoopOptions())
    curve = [p["validation/mrr"] for p in run.curve if "validation/mrr" in p]
    return {
        "validation": run.metrics,
        "curve": [round(v, 4) for v in curve],
        "best_epoch": run.best_epoch,
        "steps": run.step,
        "data_wait_share": round(run.data_wait_share, 4),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configurations", type=Path, help='JSON lines: {"name": …, "overrides": {…}, "inputs": {…}}')
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
        with tempfile.TemporaryDirectory(prefix="pinsage-search-") as folder:
            found = trained(wanted["overrides"], wanted.get("inputs", {}), Path(folder))
            if args.keep:
                shutil.copytree(Path(folder) / "checkpoint" / "artifact", args.keep / wanted["name"])
        with args.out.open("a") as out:
            out.write(json.dumps({**wanted, **found}) + "\n")
        print(wanted["name"], found["validation"], f"{found['seconds']:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
