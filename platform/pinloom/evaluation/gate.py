"""The promotion gate: is the challenger not worse than the champion, and was either asked about what it had learned?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import polars as pl

from components.errors import UserError
from components.evaluation.bootstrap import Bootstrap, Interval
from pinloom.datasets.spec import PromotionSpec
from pinloom.evaluation.measure import Metric, Task
from pinloom.evaluation.scoring import Scores
from pinloom.lake import Lake, Manifest


@dataclass(frozen=True)
class Comparison:
    """One metric of two rankers on the same requests, so oriented that a positive `gain` is better."""

    metric: str
    challenger: Interval
    rival: Interval
    gain: Interval


@dataclass(frozen=True)
class Decision:
    """What was decided, and why.

    Attributes:
        rival: 'champion', or 'popularity' for the first one, or '' when nothing was compared.
        champion: manifest URI of the champion at the time, '' when there was none.
        reason: one or two sentences for people.
        comparisons: the gate's metric first.
    """

    promoted: bool
    reason: str
    rival: str = ""
    challenger: str = ""
    champion: str = ""
    requests: int = 0
    comparisons: tuple[Comparison, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    task: Task, challenger: Scores, rival: Scores, names: Sequence[str], gate: PromotionSpec, seed: int = 0
) -> tuple[Comparison, ...]:
    """Paired comparison of each metric.

    Raises:
        UserError: a metric that needs probabilities which the rival does not have, or that nothing measures.
    """
    boot = Bootstrap(task.rows.requests.height, gate.resamples, seed, gate.confidence)
    return tuple(_compare(task, name, challenger, rival, boot) for name in names)


def _compare(task: Task, name: str, challenger: Scores, rival: Scores, boot: Bootstrap) -> Comparison:
    ours, theirs = task.statistic(name, challenger), task.statistic(name, rival)
    if ours is None or theirs is None:
        raise UserError(
            f"promotion.metric '{name}' needs probabilities, which popularity does not have",
            "choose a metric of the order for the data set's `promotion`: hit@K, recall@K, mrr or auc/HEAD",
        )
    if not ours.denominator.sum():
        raise UserError(
            f"'{name}' cannot be measured: it never happened in {task.rows.requests.height} requests",
            "choose another metric, or evaluate on a split in which it happens",
        )
    pair = (theirs, ours) if task.lower_is_better(Metric.parse(name, task.heads)) else (ours, theirs)
    mine, other = boot.intervals([ours, theirs])
    return Comparison(name, mine, other, boot.differences([pair[0]], [pair[1]])[0])


def first_champion(found: tuple[Comparison, ...], gate: PromotionSpec, requests: int) -> tuple[bool, str]:
    """A first champion must beat popularity: the lower bound of its gain lies above zero."""
    said = _said(found[0], "popularity", gate, requests)
    if found[0].gain.low > 0:
        return True, f"Promoted as the first champion: it beats popularity. {said}"
    return False, f"Not promoted: a first champion must beat popularity, with a lower bound above zero. {said}"


def not_worse(found: tuple[Comparison, ...], gate: PromotionSpec, requests: int, champion: str) -> tuple[bool, str]:
    """A challenger must not be worse than the champion: the lower bound of its gain is at least −delta."""
    said = _said(found[0], "the champion's", gate, requests)
    if found[0].gain.low >= -gate.delta:
        return True, f"Promoted over {champion}: the lower bound is at least −{gate.delta:g}. {said}"
    return False, f"Kept {champion}: the lower bound is below −{gate.delta:g}. {said}"


def _said(found: Comparison, rival: str, gate: PromotionSpec, requests: int) -> str:
    gain = found.gain
    return (
        f"On {requests} requests of the same split {found.metric} is {found.challenger.value:.4f} against {rival} "
        f"{found.rival.value:.4f}; the paired gain is {gain.value:+.4f} "
        f"({gate.confidence:.0%} interval {gain.low:+.4f} to {gain.high:+.4f}, {gate.resamples} resamples)."
    ).replace("-", "−")


def span(lake: Lake, features: Manifest, *splits: str) -> tuple[datetime, datetime]:
    """First and last moment of the requests of some splits."""
    uris = [u for s in splits for u in features.output("examples").partition(s)]
    scan = pl.scan_parquet([lake.local_path(u) for u in uris]).select(
        first=pl.col("timestamp").min(), last=pl.col("timestamp").max()
    )
    first, last = scan.collect().row(0)
    return first, last


def windows(
    lake: Lake, evaluated: Manifest, split: str, train: Manifest
) -> tuple[datetime, datetime, datetime, datetime]:
    """First and last moment of a split, then of everything that a run learned from or was stopped by."""
    learned = lake.manifest(train.inputs["features"]["uri"])
    return *span(lake, evaluated, split), *span(lake, learned, "train", "validation")


def seen(lake: Lake, evaluated: Manifest, split: str, train: Manifest) -> bool:
    """Whether a split begins before the end of what a run learned from or was stopped by."""
    first, _, _, until = windows(lake, evaluated, split, train)
    return first <= until


def refuse_seen(lake: Lake, evaluated: Manifest, split: str, who: str, train: Manifest) -> None:
    """A model may be judged only on what came after everything that it learned from or was chosen by.

    Raises:
        UserError: the split begins before the end of the run's training and validation rows.
    """
    first, last, learned, until = windows(lake, evaluated, split, train)
    if first <= until:
        raise UserError(
            f"the {split} split ({first:%Y-%m-%d} to {last:%Y-%m-%d}) lies inside what {who} learned from "
            f"({learned:%Y-%m-%d} to {until:%Y-%m-%d})",
            "evaluate on a later split: move `contract.splits` of the data set forward, or give the features of later "
            "days to `evaluate`",
        )
