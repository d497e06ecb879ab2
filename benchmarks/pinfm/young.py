"""CIR and IDD on young items: rankers that differ in them alone, on test requests in which such an item was chosen.

    python -m benchmarks.pinfm.young --others 2000 --overrides '{"sequence_length": 32, "epochs": 1}'

Reads the lake's newest features and the newest run of `pinfm`; trains each variant once a seed in this process. Young
are items under 7 and 28 days, and those that nobody had chosen. All requests in which one was chosen are scored, and of
the others a few, for what the choice costs elsewhere. Of several seeds measures are averaged; intervals draw users.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.evaluation import metrics
from components.evaluation.bootstrap import Bootstrap, Interval, Ratio
from components.evaluation.rows import Rows
from components.models.pinfm_ranker.config import ABLATIONS
from components.models.ranker import load_ranker
from components.recipe import load_recipe
from pinloom.datasets import load_dataset
from pinloom.evaluation.measure import LEAST_CHOSEN, Task
from pinloom.evaluation.scoring import Scores, open_items, open_rows, score
from pinloom.evaluation.study import rare
from pinloom.settings import get_settings
from pinloom.steps.base import snapshot_day
from pinloom.steps.job import open_lake
from pinloom.training.job import RecipeJob
from pinloom.training.local import run_local
from pinloom.training.loop import LoopOptions

BOTH = "CIR and IDD"
VARIANTS: dict[str, dict[str, Any]] = {
    BOTH: {},
    "CIR without IDD": ABLATIONS["Table 2: CIR without IDD"],
    "IDD without CIR": ABLATIONS["IDD without CIR"],
    "neither": ABLATIONS["Table 2: neither CIR nor IDD"],
    "both, frozen": ABLATIONS["Table 6: frozen"],
    "both, from scratch": ABLATIONS["scratch"],
    "no PinFM": ABLATIONS["no PinFM"],
}

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Lab:
    """A lake's features with its base, and the test requests that are scored."""

    job: Callable[[dict[str, Any], int], RecipeJob]
    score: Callable[[Path], Scores]
    task: Task

    @classmethod
    def open(cls, most: int | None, others: int) -> Lab:
        settings = get_settings()
        spec = load_dataset(settings.dataset)
        lake = open_lake(settings, spec.name)
        features, base = lake.require("features"), lake.require("runs/pinfm")
        recipe, items = load_recipe("pinfm_ranker"), open_items(lake, features)
        contract = spec.as_of(snapshot_day(features)).contract
        utilities = tuple(contract.head_utility[h] for h in contract.heads)
        rows = _asked(open_rows(lake, features, "test", most), utilities, others)

        def job(overrides: dict[str, Any], seed: int) -> RecipeJob:
            return RecipeJob(recipe, contract, features, lake.root, overrides=overrides, seed=seed, extras=(base,))

        return cls(job, lambda folder: score(load_ranker(folder), rows, items), Task(rows, utilities))

    def trained(self, overrides: dict[str, Any], seed: int) -> Scores:
        with tempfile.TemporaryDirectory(prefix="pinloom-young-") as name:
            run_local(self.job(overrides, seed)(), Path(name), LoopOptions())
            return self.score(Path(name) / "checkpoint" / "artifact")


def _parts(rows: Rows) -> dict[str, Bools]:
    parts = rare(rows)
    return {**parts, "all other items": ~np.any(list(parts.values()), axis=0)}


def _asked(rows: Rows, utilities: tuple[float, ...], others: int) -> Rows:
    """Requests with a chosen item of a rare part, and `others` of those without, as they come."""
    wanted = ~_parts(rows)["all other items"] & Task(rows, utilities).chosen
    has = np.bincount(rows.owner, wanted, rows.requests.height) > 0
    rest = np.flatnonzero(~has)
    drawn = np.random.default_rng(0).permutation(rest)[:others]
    return rows.take(np.sort(np.concatenate([np.flatnonzero(has), drawn])))


def _found(task: Task, scores: Scores, part: Bools) -> Ratio:
    """Share of the part's chosen rows that are among the first three of their request."""
    return metrics.found_at(scores.top_share(task.rows, 3), task.chosen & part, task.rows.offsets)


def _auc(task: Task, scores: Scores, part: Bools) -> Ratio:
    """Chosen rows of the part against its others, whatever request they are of: where requests have one candidate."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(task.rows.owner[part], minlength=task.units))])
    return metrics.auc(scores.final[part], task.chosen[part], offsets, task.rows.weights[part])


MEASURES: dict[str, Callable[[Task, Scores, Bools], Ratio]] = {"found@3": _found, "AUC": _auc}


def _mean(of_seeds: Sequence[Ratio]) -> Ratio:
    return Ratio(np.mean([r.numerator for r in of_seeds], axis=0), of_seeds[0].denominator)


@dataclass(frozen=True)
class Table:
    """What is measured: the first variant's own values, and of each other how much less it finds."""

    task: Task
    boot: Bootstrap
    parts: dict[str, Bools]
    first: dict[tuple[str, str], Ratio] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Task) -> Table:
        table = cls(task, Bootstrap(task.units, 1000, 0, user_of=task.user_of), _parts(task.rows))
        for part, mask in table.parts.items():
            print(f"{part}: {int((task.chosen & mask).sum())} chosen of {int(mask.sum())}")
        print(f"of {task.units} requests of {table.boot.drawn} users\n")
        print(f"| items | measure | ranker | | {BOTH} − it |\n{'|---' * 5}|", flush=True)
        return table

    def row(self, who: str, seeds: Sequence[Scores]) -> None:
        for (part, mask), (name, measure) in product(self.parts.items(), MEASURES.items()):
            if (self.task.chosen & mask).sum() >= LEAST_CHOSEN:
                ratio = _mean([measure(self.task, s, mask) for s in seeds])
                first = self.first.setdefault((part, name), ratio)
                (value,), (lift,) = self.boot.intervals([ratio]), self.boot.differences([first], [ratio])
                said = "" if first is ratio else _said(lift, "+")
                print(f"| {part} | {name} | {who} | {_said(value, '')} | {said} |", flush=True)


def _said(i: Interval, sign: str) -> str:
    return f"{i.value:{sign}.4f} [{i.low:{sign}.4f}, {i.high:{sign}.4f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, help="of the test split that are looked at, at most")
    parser.add_argument("--others", type=int, default=2000, help="requests without a chosen young item, at most")
    parser.add_argument("--overrides", type=json.loads, default={}, help="of all variants, JSON")
    parser.add_argument("--seeds", type=int, default=1)
    rows = parser.add_argument("--rows", nargs="*", default=[*VARIANTS][1:], choices=[*VARIANTS][1:], metavar="ROW")
    rows.help = f"beside '{BOTH}': {', '.join(rows.default)}"
    args = parser.parse_args()
    logging.disable(logging.INFO)
    os.environ.setdefault("TQDM_DISABLE", "1")
    torch.set_num_threads(1)
    lab = Lab.open(args.requests, args.others)
    table = Table.of(lab.task)
    for name in (BOTH, *args.rows):
        table.row(name, [lab.trained({**args.overrides, **VARIANTS[name]}, seed) for seed in range(args.seeds)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
