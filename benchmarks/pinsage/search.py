"""Configurations of PinSage compared on the validation pairs of a lake that has features.

One JSON line per configuration goes to `--out`; those that are there already are not trained again. Graphs and
neighbourhoods are made by the steps, once each. All are asked the same, whatever they were trained on: the later pairs
from a basket to the next, and those of one basket. Nothing of the test split is read.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks._search import search
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
    return search(__doc__, '"world": {…}', trained, lambda found: {k: found[k] for k in PAIRS if k in found})


if __name__ == "__main__":
    sys.exit(main())
