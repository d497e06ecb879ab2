"""Configurations of PinSage compared on the validation pairs of a lake that has features.

One JSON line per configuration goes to `--out`; those that are there already are not trained again. Graphs and
neighbourhoods are made by the steps, once each. All are asked the same, whatever they were trained on: the later pairs
from a basket to the next, and those of one basket. Nothing of the test split is read.
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

from benchmarks.pinsage.worlds import PAIRS, World
from components.evaluation.related import Scorer, by_vectors, spread, times_chosen
from components.models.pinsage.artifact import load_pinsage
from components.models.pinsage.config import PinSageConfig
from components.models.pinsage.inference import embed
from components.models.pinsage.recipe import PinSageRecipe
from pinloom.evaluation.related import matched_by_popularity
from pinloom.training.local import run_local
from pinloom.training.loop import LoopOptions

ASKED = 4000
"""Pairs of each kind, a fixed sample."""

KS = (10, 100, 500)


def trained(wanted: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train one configuration in this process and ask it."""
    began = time.perf_counter()
    world = World(**wanted.get("world", {}))
    recipe = PinSageRecipe(PinSageConfig(**wanted["overrides"]), world.inputs(wanted["overrides"]))
    run = run_local(recipe, folder, LoopOptions())
    curve = [p["validation/mrr"] for p in run.curve if "validation/mrr" in p]
    model = load_pinsage(folder / "checkpoint" / "artifact")
    vectors = embed(model, recipe.catalogue)
    return {
        "curve": [round(v, 4) for v in curve],
        "best_epoch": run.best_epoch,
        "steps": run.step,
        "data_wait_share": round(run.data_wait_share, 4),
        **{name: asked(World(), source, by_vectors(vectors)) for name, (source, *more) in PAIRS.items() if not more},
        "similarity": round(spread(vectors).mean, 4),
        "centred": round(spread(vectors - vectors[1:].mean(0)).mean, 4),
        "seconds": round(time.perf_counter() - began, 1),
    }


def asked(world: World, source: str, scorer: Scorer) -> dict[str, float]:
    """Measures on the validation pairs of one source; 'beaten' and 'found' among items chosen as often."""
    pairs = world.asked(source, "validation", ASKED)
    chosen = times_chosen(world.counted(source), int(world.features.metrics["items"]) + 1)
    measures = pairs.measures(pairs.places(scorer), KS) | matched_by_popularity(pairs, scorer, chosen)[0]
    return {name: round(ratio.value, 4) for name, ratio in measures.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configurations", type=Path, help='JSON lines: {"name": …, "overrides": {…}, "world": {…}}')
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
            found = trained(wanted, Path(folder))
            if args.keep:
                shutil.copytree(Path(folder) / "checkpoint" / "artifact", args.keep / wanted["name"])
        with args.out.open("a") as out:
            out.write(json.dumps({**wanted, **found}) + "\n")
        print(wanted["name"], {k: found[k] for k in PAIRS if k in found}, f"{found['seconds']:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
