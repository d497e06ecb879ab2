"""Everything that an evaluation measures, as numbers; what they look like is the report's business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.evaluation import baselines, diversity
from components.evaluation.baselines import Tree
from components.evaluation.bootstrap import Bootstrap, Interval, Ratio
from components.evaluation.matched import Matched, matched
from components.evaluation.metrics import Bools, calibration_bins, found_at, hit_at, per_request, top_share
from components.evaluation.rows import Rows
from components.history.items import ItemTable
from components.models.ranker import RankerArtifact
from pinloom.evaluation.measure import FRESH_DAYS, Intervals, Slice, Task, lifts, measure, nested, sliced
from pinloom.evaluation.scoring import Scores, score

K = 3
NOSEQ, TREE, PERSONAL, POPULARITY = "noseq", "tree", "personal", "popularity"
FULL_METRICS = ("hit@3", "hit@10", "recall@10", "recall@50", "recall@100", "mrr")
AGE = "log_age_days"
"""log(2 + days) of a candidate, 0 = unknown."""

HISTORY_LENGTHS = (1, 20, 100)
"""Borders of the slices by length of history."""


@dataclass(frozen=True)
class Model:
    """An artifact and the item table with its own vectors."""

    artifact: RankerArtifact
    items: ItemTable

    def score(self, rows: Rows) -> Scores:
        return score(self.artifact, rows, self.items)


@dataclass(frozen=True)
class CalibrationBin:
    predicted: float
    observed: Interval


@dataclass(frozen=True)
class Study:
    """The measured results.

    Attributes:
        rankers: scores on the split's rows, the subject first.
        headline, heads, matched, full, diversity: ranker → metric → interval; ablations: of the first two.
        lift, ablation_lift: rival → metric → paired difference subject − rival.
        ablation_slices: young and unseen items by the subject and with one choice changed.
        matched_left_out, matched_mean: chosen rows without enough equally popular negatives; mean of those used.
    """

    subject: str
    task: Task
    rankers: dict[str, Scores]
    boot: Bootstrap
    headline: Intervals
    lift: Intervals
    heads: Intervals
    calibration: dict[str, list[CalibrationBin]]
    matched: Intervals
    matched_count: int
    matched_left_out: int
    matched_mean: float
    matched_source: str
    slices: list[Slice]
    diversity: Intervals
    ablations: Intervals
    ablation_lift: Intervals
    ablation_slices: list[Slice] = field(default_factory=list)
    full_task: Task | None = None
    full: Intervals = field(default_factory=dict)

    @property
    def full_size(self) -> float:
        """Mean number of candidates of a full ranking; 0 without any."""
        rows = self.full_task.rows if self.full_task is not None else None
        return len(rows) / rows.requests.height if rows is not None else 0.0


def rank_all(rows: Rows, models: Mapping[str, Model], tree: Tree, utilities: tuple[float, ...]) -> dict[str, Scores]:
    """Scores of the models, in their order, and of the rivals without a sequence."""
    found = {name: model.score(rows) for name, model in models.items()}
    predicted = tree.predict(rows).astype(np.float32)
    found[TREE] = Scores(predicted @ np.array(utilities, np.float32), predicted)
    found[PERSONAL] = Scores(baselines.personal_frequency(rows))
    found[POPULARITY] = Scores(baselines.popularity(rows))
    return found


def study(
    subject: str,
    models: Mapping[str, Model],
    tree: Tree,
    rows: Rows,
    full: Rows | None,
    boot: Bootstrap,
    ablations: Mapping[str, Scores] | None = None,
) -> Study:
    """Measure `subject` (a key of `models`) against all others on `rows` and on the full sets.

    Args:
        ablations: scores on `rows` of the subject with one choice changed; compared by the headline, by each head and
            on young items and those that nobody had chosen.
    """
    utilities = models[subject].artifact.utilities
    task = Task(rows, utilities)
    rankers = rank_all(rows, models, tree, utilities)
    full_task = Task(full, utilities) if full is not None else None
    full_rankers = rank_all(full, models, tree, utilities) if full is not None else {}
    full_boot = _boot_for(boot, full) if full is not None else boot
    pool = (full_task, full_rankers, full_boot) if full_task is not None else (task, rankers, boot)
    pairs = _match(pool[0])
    changed = {subject: rankers[subject], **ablations} if ablations else {}
    # Where a request has one candidate hits say nothing.
    told = [*hit_names(task), *head_names(task, ("auc", "log_loss"))]
    return Study(
        subject=subject,
        task=task,
        rankers=rankers,
        boot=boot,
        headline=measure(task, rankers, hit_names(task), boot),
        lift=lifts(task, subject, rankers, hit_names(task), boot),
        heads=measure(task, rankers, head_names(task), boot),
        calibration=_calibration(task, rankers[subject], boot),
        matched=_matched(pairs, *pool),
        matched_count=len(pairs.request),
        matched_left_out=pairs.left_out,
        matched_mean=float(np.diff(pairs.offsets).mean() - 1) if len(pairs.request) else 0.0,
        matched_source="full" if full is not None else "split",
        slices=_slices(task, _masks(rows), rankers, boot),
        diversity=_diversity(task, rankers, models[subject].items, boot),
        ablations=measure(task, changed, told, boot) if changed else {},
        ablation_lift=lifts(task, subject, changed, told, boot) if changed else {},
        ablation_slices=_slices(task, rare(rows), changed, boot) if changed else [],
        full_task=full_task,
        full=measure(full_task, full_rankers, FULL_METRICS, full_boot) if full_task is not None else {},
    )


def hit_names(task: Task) -> list[str]:
    return [f"hit@{K}", *(f"hit@{K}/{h}" for h in task.heads)]


def head_names(task: Task, kinds: Sequence[str] = ("auc", "log_loss", "calibration")) -> list[str]:
    return [f"{kind}/{h}" for h in task.heads for kind in kinds]


def _boot_for(boot: Bootstrap, rows: Rows) -> Bootstrap:
    return replace(boot, requests=rows.requests.height, user_of=rows.user_of)


def _calibration(task: Task, scores: Scores, boot: Bootstrap) -> dict[str, list[CalibrationBin]]:
    rows, curves = task.rows, {}
    for h, head in enumerate(task.heads):
        predicted = scores.of_head(h)
        if predicted is not None and rows.labels[:, h].any():
            bins = calibration_bins(predicted, rows.labels[:, h], rows.offsets, rows.weights)
            observed = boot.intervals([ratio for _, ratio in bins])
            curves[head] = [CalibrationBin(p, i) for (p, _), i in zip(bins, observed, strict=True)]
    return curves


def _match(task: Task) -> Matched:
    return matched(baselines.popularity(task.rows), task.chosen, task.rows.offsets)


def _matched(pairs: Matched, task: Task, rankers: Mapping[str, Scores], boot: Bootstrap) -> Intervals:
    """HIT@3 and AUC inside the small rankings of one chosen row and negatives as popular."""
    found: dict[tuple[str, str], Ratio] = {}
    for ranker, scores in rankers.items():
        final = scores.final[pairs.rows]
        hits = hit_at(top_share(final, pairs.offsets, K), pairs.chosen, pairs.offsets)
        beaten = _beaten(final, pairs)
        found[ranker, f"hit@{K}"] = pairs.by_request(hits, boot.requests)
        found[ranker, "pairs"] = pairs.by_request(beaten, boot.requests)
    return nested(found, boot)


def _beaten(final: NDArray[np.float32], pairs: Matched) -> Ratio:
    """Share of its negatives that each chosen row is above; equal ones count half."""
    size = np.diff(pairs.offsets)
    own = np.repeat(final[pairs.offsets[:-1]], size)
    won = np.where(pairs.chosen, 0.0, (own > final) + 0.5 * (own == final))
    total = np.add.reduceat(won, pairs.offsets[:-1]) if len(size) else np.empty(0)
    return Ratio(total / np.maximum(size - 1, 1), np.ones(len(size)))


def _slices(task: Task, masks: Mapping[str, Bools], rankers: Mapping[str, Scores], boot: Bootstrap) -> list[Slice]:
    """Of what was chosen in a part of the rows, the share that each ranker puts among the first K."""
    parts = {name: task.chosen & mask for name, mask in masks.items()}
    return sliced(parts, rankers, lambda s, part: found_at(s.top_share(task.rows, K), part, task.rows.offsets), boot)


def _masks(rows: Rows) -> dict[str, Bools]:
    """Parts of the rows, by user, by item and by week of the split: how a ranker ages that is not retrained."""
    length = rows.requests["history_item"].list.len().to_numpy()
    active = rows.user_column("log_actions_28d")
    core = active >= np.median(active)
    edges = [0, *HISTORY_LENGTHS]
    users = {"core users": core, "other users": ~core}
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        users[_range(low, high)] = (length >= low) & (high is None or length < high)
    by_user = {name: np.asarray(mask)[rows.owner] for name, mask in users.items()}
    again = rows.column(baselines.PERSONAL_COUNT) > 0
    everything = {"all": np.ones(len(rows), bool)}
    items = {"chosen before by the user": again, "new to the user": ~again}
    return {**everything, **by_user, **items, **unseen(rows), **fresh(rows), **_weeks(rows)}


def rare(rows: Rows) -> dict[str, Bools]:
    """Items that a model of ids hardly knows."""
    return {**fresh(rows), **unseen(rows)}


def unseen(rows: Rows) -> dict[str, Bools]:
    """Items that nobody had chosen at the last midnight."""
    return {"items nobody had chosen": rows.flat("candidate_hash") == 0}


def fresh(rows: Rows) -> dict[str, Bools]:
    """Items by their age as of the last midnight; those whose first moment is not known are in none."""
    if AGE not in rows.schema.candidate_numeric:
        return {}
    said = rows.column(AGE)
    return {f"items younger than {days} days": (said > 0) & (np.expm1(said) - 1 < days) for days in FRESH_DAYS}


def _weeks(rows: Rows) -> dict[str, Bools]:
    """Weeks from the midnight before the split's first request."""
    moment = rows.requests["timestamp"]
    first = moment.dt.truncate("1d").min()
    week = ((moment - first).dt.total_days() // 7).to_numpy()[rows.owner]
    return {f"week {w + 1}": week == w for w in range(int(week.max(initial=0)) + 1)}


def _range(low: int, high: int | None) -> str:
    if high == 1:
        return "no history"
    return f"history of {low} and more" if high is None else f"history of {low} to {high - 1}"


def _diversity(task: Task, rankers: Mapping[str, Scores], items: ItemTable, boot: Bootstrap) -> Intervals:
    codes = items.category.cast(pl.Categorical).to_physical().cast(pl.Int64) + 1
    group = codes.fill_null(0).to_numpy()[task.rows.item]
    found: dict[tuple[str, str], Ratio] = {}
    for ranker, scores in rankers.items():
        for k in (K, 10):
            shown = diversity.first_k(scores.final, task.rows.offsets, k)
            found[ranker, f"categories@{k}"] = diversity.distinct_groups(shown, group, task.rows.offsets)
        again = task.rows.column(baselines.PERSONAL_COUNT) > 0
        found[ranker, f"repeats@{K}"] = _share(scores.top_share(task.rows, K), again, task.rows)
    return nested(found, boot)


def _share(shown: NDArray[np.float64], mask: Bools, rows: Rows) -> Ratio:
    """Share of the shown rows inside the mask."""
    return Ratio(per_request(shown * mask, rows.offsets), per_request(shown, rows.offsets))


def coverage(found: Study) -> dict[str, float]:
    """Share of all different candidates that each ranker puts among anybody's first K."""
    rows = found.task.rows
    return {
        ranker: diversity.coverage(diversity.first_k(scores.final, rows.offsets, K), rows.item)
        for ranker, scores in found.rankers.items()
    }


def chance(task: Task) -> float:
    """HIT@K of a random order."""
    none = Scores(np.zeros(len(task.rows), np.float32))
    statistic = task.statistic(f"hit@{K}", none)
    assert statistic is not None
    return statistic.value
