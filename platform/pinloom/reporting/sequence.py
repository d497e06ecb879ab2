"""The evaluation page of a model of sequences: the study's numbers in tables, a figure and plain sentences."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from components.evaluation.next_items import Questions, Scorer
from components.evaluation.next_rivals import FOLLOWED_DAYS, NEWEST, POPULAR_DAYS
from components.history.items import ItemTable
from components.history.statistics import DAY
from pinloom.evaluation.measure import LEAST_CHOSEN
from pinloom.evaluation.next_items import GATE, METRICS, NextStudy
from pinloom.reporting import plots, prose
from pinloom.reporting.about import About
from pinloom.reporting.cases import Case, Line, title_of
from pinloom.reporting.compared import Compared
from pinloom.reporting.html import render
from pinloom.reporting.tables import count

NAMES = {
    "pinfm": "PinFM",
    "sasrec": "SASRec",
    "popularity": "Popularity",
    "personal": "Personal frequency",
    "followers": "What followed before",
    "content": "Content",
}
INLINE = {
    "popularity": "popularity",
    "personal": "personal frequency",
    "followers": "what followed before",
    "content": "content",
}
CASES, SHOWN = 8, 8


def name_of(who: str) -> str:
    return NAMES.get(who, who)


def title(metric: str) -> str:
    return "MRR" if metric == "mrr" else metric.replace("recall@", "Recall@")


def page(found: NextStudy, scorers: Mapping[str, Scorer], about: About) -> str:
    """One self-contained HTML document."""
    subject = name_of(found.subject)
    compared = Compared(found.subject, found.headline, METRICS, GATE, name_of, title)
    content = {
        "title": f"{subject} on {about.contract.name}",
        "subject": subject,
        "confidence": f"{found.boot.confidence:.0%}",
        "verdict": _verdict(found, subject),
        "prose": _prose(found, about, subject),
        "facts": _facts(found, about),
        **compared.comparison(found.lift, found.ablations, found.ablation_lift),
        "slices": compared.slices(found.slices, found.places, "Chosen items"),
        "cases": _cases(found.task.questions, scorers[found.subject], about),
        "curves": plots.training(about.curve),
        "lineage": about.lineage,
    }
    return render("sequence", content)


def _facts(found: NextStudy, about: About) -> list[tuple[str, str]]:
    questions = found.task.questions
    return [
        ("Split", about.dates),
        ("Moments", count(len(questions))),
        ("Users", count(found.boot.drawn)),
        ("Chosen items", count(len(questions.item_P))),
        ("Items to choose from", count(len(about.items) - 1)),
        ("Bootstrap resamples", count(found.boot.resamples)),
    ]


def _cases(questions: Questions, scorer: Scorer, about: About) -> list[Case]:
    """A few moments at random: what the user had, what stood highest, what was chosen."""
    drawn = np.sort(np.random.default_rng(about.seed).permutation(len(questions))[:CASES])
    scores = scorer(drawn)
    scores[:, 0] = -np.inf
    return [_case(questions, int(q), row, about.items) for q, row in zip(drawn, scores, strict=True)]


def _case(questions: Questions, question: int, score: np.ndarray, items: ItemTable) -> Case:
    chosen = set(questions.item_P[questions.question_P == question].tolist())
    first, last = questions.begin_Q[question], questions.end_Q[question]
    newest = range(int(last) - 1, int(max(first, last - SHOWN)) - 1, -1)
    history, time = questions.events["item"], questions.events["timestamp"]
    now = int(questions.time_Q[question])
    order = np.argsort(-score, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    missed = sorted((i for i in chosen if rank[i] > SHOWN), key=lambda i: rank[i])
    return Case(
        user=f"{count(last - first)} events before",
        when=f"{count(len(chosen))} chosen at {np.datetime64(now, 'us').astype('datetime64[m]')}",
        history=[Line(title_of(items, int(history[n])), f"{(now - int(time[n])) / DAY:.0f} d") for n in newest],
        ranked=[
            Line(title_of(items, int(i)), f"{score[i]:.2f}", str(rank[i]), int(i) in chosen) for i in order[:SHOWN]
        ],
        missed=[Line(title_of(items, i), "", str(rank[i]), True) for i in missed[:SHOWN]],
    )


def _verdict(found: NextStudy, subject: str) -> str:
    ours = found.headline[found.subject][GATE]
    lift = {INLINE.get(who, who): m[GATE] for who, m in found.lift.items()}
    said = (
        f"Of what users choose next, {ours.value:.1%} ({ours.low:.1%} to {ours.high:.1%}) is among the 10 items of the "
        f"catalogue that {subject} ranks highest."
    )
    return " ".join([said, *prose.told_apart(lift)])


def _prose(found: NextStudy, about: About, subject: str) -> dict[str, str]:
    return {
        "moments": _moments(found, about, subject),
        "measures": f"Recall@K is the share of the items chosen at a moment that are among the first K of all "
        f"{count(len(about.items) - 1)}, MRR 1 over the rank of the highest of them; means over moments. Items of "
        "equal score count as if in random order.",
        "rivals": f"Popularity counts everybody's positive actions in the {POPULAR_DAYS} days before the moment's "
        "midnight, personal frequency the user's own with the item, ever. What followed before is how often anybody "
        "who chose an item of the user's last moment chose an item at the next one, in the "
        f"{FOLLOWED_DAYS} days before the split. Content is likeness to the newest {NEWEST} items. "
        "Popularity breaks their ties.",
        "ablations": prose.ablations(subject, found.ablation_lift, GATE, "same moments, seed and batches"),
        "slices": "Of the chosen items of a kind, the share among the first 10. An item was had before when the "
        "user's history holds it. Ages are from the item's first appearance where the log does not say when it was "
        f"made. Parts with fewer than {LEAST_CHOSEN} chosen items are left out.",
        "cases": "Moments at random, the user's newest events before them, and what stood highest with its score. "
        "Green is what was chosen.",
        "training": "Means between two points of the training curve; validation at the end of each epoch.",
    }


def _moments(found: NextStudy, about: About, subject: str) -> str:
    said = (
        f"{count(len(found.task.questions))} moments of the {about.split} split at which a user chose something. Each "
        "is predicted from what the user did strictly before it. Ranges are bootstrap intervals over users"
    )
    if about.seen:
        return f"{said}. {subject} learned from these days or was chosen by them, which flatters it."
    return f"{said}. All of them are later than anything that {subject} learned from."
