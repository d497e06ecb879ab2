"""How high what users choose next stands, by a model of sequences and by its rivals: all that its report measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from components.errors import UserError
from components.evaluation.bootstrap import Bootstrap, Ratio
from components.evaluation.next_items import Questions, Scorer, recall, reciprocal_rank
from components.evaluation.retrieval import Places
from components.history.items import ItemTable
from components.history.statistics import DAY
from pinloom.evaluation.measure import FRESH_DAYS, Intervals, Slice, lifts, measure, sliced

POPULARITY = "popularity"
GATE = "recall@10"
"""What decides about promotion."""

METRICS = (GATE, "recall@100", "mrr")
HISTORY_LENGTHS = (20, 100)
"""Borders of the slices by the number of events before the question."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class NextItems:
    """Questions of a split: of everything there is, what does the user choose at this moment?"""

    questions: Questions

    @property
    def units(self) -> int:
        return len(self.questions)

    @property
    def user_of(self) -> NDArray[np.int64]:
        return np.unique(self.questions.user_Q, return_inverse=True)[1]

    def lower_is_better(self, name: str) -> bool:
        return False

    def statistic(self, name: str, scores: Places) -> Ratio:
        """One metric as a mean over questions.

        Raises:
            UserError: no such metric.
        """
        asked = scores, self.questions.question_P, self.units
        kind, _, k = name.partition("@")
        if kind == "recall" and k.isdecimal() and int(k):
            return Ratio(recall(*asked, int(k)), np.ones(self.units))
        if name == "mrr":
            return Ratio(reciprocal_rank(*asked), np.ones(self.units))
        raise UserError(f"there is no metric '{name}' of next items", "use recall@K or mrr")

    def found(self, scores: Places, part_P: Bools) -> Ratio:
        """Of the chosen items in a part, the share among the first 10."""
        owner = self.questions.question_P
        sides = (np.bincount(owner, weight, self.units) for weight in (scores.hit(10) * part_P, part_P))
        return Ratio(*(side.astype(np.float64) for side in sides))


@dataclass(frozen=True)
class NextStudy:
    """The measured results.

    Attributes:
        places: where chosen items stand, the subject first, then its rivals.
        headline, ablations: who → metric → interval.
        lift, ablation_lift: rival → metric → paired difference subject − rival.
        slices: recall@10 of chosen items in parts of them.
    """

    subject: str
    task: NextItems
    places: dict[str, Places]
    boot: Bootstrap
    headline: Intervals
    lift: Intervals
    slices: list[Slice]
    ablations: Intervals = field(default_factory=dict)
    ablation_lift: Intervals = field(default_factory=dict)


def study(
    subject: str,
    questions: Questions,
    items: ItemTable,
    scorers: Mapping[str, Scorer],
    ablations: Mapping[str, Places],
    resamples: int,
    seed: int,
) -> NextStudy:
    """Measure `subject`, the first of `scorers`, against all others.

    Args:
        ablations: places by the subject with one choice changed.
    """
    task = NextItems(questions)
    boot = Bootstrap(task.units, resamples, seed, user_of=task.user_of)
    places = {name: questions.places(scorer) for name, scorer in scorers.items()}
    changed = {subject: places[subject], **ablations} if ablations else {}
    return NextStudy(
        subject=subject,
        task=task,
        places=places,
        boot=boot,
        headline=measure(task, places, METRICS, boot),
        lift=lifts(task, subject, places, METRICS, boot),
        slices=sliced(_parts(questions, items), places, task.found, boot),
        ablations=measure(task, changed, METRICS, boot) if changed else {},
        ablation_lift=lifts(task, subject, changed, METRICS, boot) if changed else {},
    )


def _parts(questions: Questions, items: ItemTable) -> dict[str, Bools]:
    """Parts of the (question, chosen item) pairs."""
    length = (questions.end_Q - questions.begin_Q)[questions.question_P]
    again = _chosen_before(questions)
    few, many = HISTORY_LENGTHS
    created = items.created[questions.item_P]
    age = questions.time_Q[questions.question_P] - created
    fresh = {f"items under {days} days": (created >= 0) & (age < days * DAY) for days in FRESH_DAYS}
    return {
        "all": np.ones(len(length), bool),
        "had before": again,
        "new to the user": ~again,
        **fresh,
        f"history under {few}": length < few,
        f"history of {few} to {many - 1}": (length >= few) & (length < many),
        f"history of {many} and more": length >= many,
    }


def _chosen_before(questions: Questions) -> Bools:
    """Whether the user's history holds the chosen item. [P]."""
    item, question_P = questions.events["item"], questions.question_P
    edges = np.searchsorted(question_P, np.arange(len(questions) + 1))
    found_P = np.zeros(len(question_P), bool)
    # One history at a time: all of them together are the log many times over.
    for a, b, begin, end in zip(edges[:-1], edges[1:], questions.begin_Q, questions.end_Q, strict=True):
        found_P[a:b] = np.isin(questions.item_P[a:b], item[begin:end])
    return found_P
