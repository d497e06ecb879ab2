"""A log on which pretraining must help: users save items of one topic, and no feature but the history says which.

    python -m benchmarks.pinfm.planted

Measures of fine-tuned rankers on 300 validation requests, where neither TransAct nor item vectors are there to help;
the log and the sizes are those of the test. Half a minute.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from components.recipe import make_recipe
from pinloom.training.local import run_local
from tests.components.models.conftest import planted_inputs
from tests.components.models.pinfm_ranker.conftest import ALONE, pretrained, with_histories

METRICS = ("hit@3/save", "loss")
VARIANTS: dict[str, dict[str, Any]] = {
    "tuned, at a tenth of the ranker's rate": {"base": "tuned"},
    "tuned, at the ranker's rate": {"base": "tuned", "pinfm_learning_rate": 1.0},
    "frozen": {"base": "frozen"},
    "scratch, at the ranker's rate": {"base": "scratch", "pinfm_learning_rate": 1.0},
    "no PinFM": {"base": "none"},
}


def main() -> int:
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    print("| base |", *(f"{name} |" for name in METRICS))
    print("|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="pinloom-planted-") as name:
        folder = Path(name)
        inputs = pretrained(with_histories(planted_inputs(folder), folder / "base"), folder / "pretrained")
        for variant, changed in VARIANTS.items():
            run = run_local(make_recipe("pinfm_ranker", inputs, "debug", {**ALONE, **changed}), folder / variant)
            print(f"| {variant} |", *(f"{run.metrics[m]:.3f} |" for m in METRICS), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
