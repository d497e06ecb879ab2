"""Metrics by name for any ranker on any rows: the report, the manifest and the gate read the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from components.evaluation import metrics
from components.evaluation.bootstrap import Bootstrap, Interval, Ratio
from components.evaluation.metrics import Bools
from components.evaluation.rows import Rows
from pinloom.datasets.metric import AT_K, Metric
from pinloom.evaluation.scoring import Scores

AnswerT = TypeVar("AnswerT", contravariant=True)
GivenT = TypeVar("GivenT")

Intervals = dict[str, dict[str, Interval]]
"""Ranker (or rival) → metric → interval."""


FRESH_DAYS = (7, 28)
"""Ages below which items are slices of their own."""

LEAST_CHOSEN = 20
"""Chosen items, or pairs, that a slice needs: an interval of fewer says nothing."""


@dataclass(frozen=True)
class Slice:
    """A part of what is to be found: how much it is, and the share of it that each ranker finds."""

    name: str
    count: int
    found: dict[str, Interval]


class Asked(Protocol[AnswerT]):
    """What was asked of every model alike, and how an answer is measured."""

    @property
    def units(self) -> int:
        """Of what statistics are sums: requests, or users."""
        ...

    @property
    def user_of(self) -> NDArray[np.int64] | None:
        """User of each unit, where users are drawn with all of theirs."""
        ...

    def statistic(self, name: str, scores: AnswerT) -> Ratio | None:
        """One metric of one answer over the units; None when the answer lacks what it needs."""
        ...

    def lower_is_better(self, name: str) -> bool: ...


@dataclass(frozen=True)
class Task:
    """Rows, and what is worth finding among them.

    Attributes:
        utilities: weight of each head in the final score; 'chosen' means any head with a positive one.
    """

    rows: Rows
    utilities: tuple[float, ...]

    @property
    def heads(self) -> tuple[str, ...]:
        return self.rows.schema.heads

    @property
    def positive(self) -> list[str]:
        return [h for h, u in zip(self.heads, self.utilities, strict=True) if u > 0]

    @property
    def chosen(self) -> Bools:
        return self.rows.happened(self.positive)

    @property
    def units(self) -> int:
        return self.rows.requests.height

    @property
    def user_of(self) -> NDArray[np.int64] | None:
        return self.rows.user_of

    def lower_is_better(self, name: str) -> bool:
        metric = Metric.parse(name, self.heads)
        unwanted = bool(metric.head) and self.utilities[self.heads.index(metric.head)] < 0
        return metric.kind == "log_loss" or (unwanted and metric.kind in (*AT_K, "mrr"))

    def statistic(self, name: str, scores: Scores) -> Ratio | None:
        """One metric of one ranker; None when it needs probabilities and the ranker has none."""
        metric, rows = Metric.parse(name, self.heads), self.rows
        happened = rows.happened([metric.head]) if metric.head else self.chosen
        if metric.kind in AT_K:
            measure = {"hit": metrics.hit_at, "recall": metrics.recall_at, "found": metrics.found_at}[metric.kind]
            return measure(scores.top_share(rows, metric.k), happened, rows.offsets)
        if metric.kind == "mrr":
            return metrics.reciprocal_rank(scores.final, happened, rows.offsets)
        predicted = scores.of_head(self.heads.index(metric.head))
        if metric.kind == "auc":
            return metrics.auc(scores.final if predicted is None else predicted, happened, rows.offsets, rows.weights)
        if predicted is None:
            return None
        measure_p = {"log_loss": metrics.log_loss, "calibration": metrics.calibration}[metric.kind]
        return measure_p(predicted, happened, rows.offsets, rows.weights)


def measure(task: Asked[AnswerT], rankers: Mapping[str, AnswerT], names: Iterable[str], boot: Bootstrap) -> Intervals:
    """Every metric of every ranker with its interval; what cannot be measured is left out."""
    found = {
        (ranker, name): statistic
        for name in names
        for ranker, scores in rankers.items()
        if (statistic := task.statistic(name, scores)) is not None
    }
    return nested(found, boot)


def nested(found: Mapping[tuple[str, str], Ratio], boot: Bootstrap) -> Intervals:
    """Intervals of named statistics, bootstrapped together."""
    result: Intervals = {}
    for (ranker, name), interval in zip(found, boot.intervals(list(found.values())), strict=True):
        if not math.isnan(interval.value):
            result.setdefault(ranker, {})[name] = interval
    return result


def sliced(
    parts: Mapping[str, Bools],
    answers: Mapping[str, GivenT],
    statistic: Callable[[GivenT, Bools], Ratio],
    boot: Bootstrap,
) -> list[Slice]:
    """One statistic of every answer on parts of what is to be found; parts of fewer than `LEAST_CHOSEN` are left out.

    Args:
        parts: name → which of it.
    """
    found = []
    for name, part in parts.items():
        if (count := int(part.sum())) >= LEAST_CHOSEN:
            by_ranker = nested({(who, name): statistic(answer, part) for who, answer in answers.items()}, boot)
            found.append(Slice(name, count, {who: intervals[name] for who, intervals in by_ranker.items()}))
    return found


def lifts(
    task: Asked[AnswerT], subject: str, rankers: Mapping[str, AnswerT], names: Iterable[str], boot: Bootstrap
) -> Intervals:
    """Paired difference subject − rival, for every rival and metric."""
    pairs = [
        ((rival, name), ours, theirs)
        for name in names
        if (ours := task.statistic(name, rankers[subject])) is not None
        for rival, scores in rankers.items()
        if rival != subject and (theirs := task.statistic(name, scores)) is not None
    ]
    drawn = boot.differences([p[1] for p in pairs], [p[2] for p in pairs])
    result: Intervals = {}
    for ((rival, name), _, _), interval in zip(pairs, drawn, strict=True):
        if not math.isnan(interval.value):
            result.setdefault(rival, {})[name] = interval
    return result


def plain(found: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, list[float]]]:
    """For a manifest: [value, low, high], rounded to what a float32 score can mean."""
    return {
        ranker: {name: [round(x, 6) for x in (i.value, i.low, i.high)] for name, i in by_name.items()}
        for ranker, by_name in found.items()
    }
