"""The evaluation page of item vectors: the study's numbers in tables, figures and plain sentences."""

from __future__ import annotations

import numpy as np

from pinloom.evaluation.measure import LEAST_CHOSEN
from pinloom.evaluation.related import (
    COMPACT,
    CONTENT,
    DAMPED,
    FIRST_SHARE,
    FOLLOWERS,
    HOPS,
    LARGEST_SHARE,
    LEAST_ITEMS,
    OTHERWISE,
    POPULAR_SHARE,
    POPULARITY,
    SHARED,
    WALK,
    WALKS,
    RelatedStudy,
)
from pinloom.reporting import plots, prose
from pinloom.reporting.about import About
from pinloom.reporting.atlas import COLOURS, draw_map, draw_neighbourhoods
from pinloom.reporting.compared import Compared
from pinloom.reporting.html import render
from pinloom.reporting.tables import Cell, Row, Table, count, listing, number, words

NEIGHBOURHOODS = 10
NAMES = {
    "pinsage": "PinSage",
    COMPACT: "The same, shortened",
    OTHERWISE["pca"]: "Shortened by PCA",
    OTHERWISE["trained"]: "Shortened by training",
    CONTENT: "Content only",
    SHARED: "Co-occurrence",
    DAMPED: "Co-occurrence, damped",
    WALK: "Pixie-style walk",
    FOLLOWERS: "What followed before",
    POPULARITY: "Popularity",
}
INLINE = {
    CONTENT: "content only",
    SHARED: "co-occurrence",
    DAMPED: "damped co-occurrence",
    WALK: "the walk",
    FOLLOWERS: "what followed before",
    POPULARITY: "popularity",
}


def name_of(who: str) -> str:
    return NAMES.get(who, who)


def page(found: RelatedStudy, about: About) -> str:
    """One self-contained HTML document."""
    subject, scale = name_of(found.subject), found.search.scale
    compared = Compared(found.subject, found.headline, scale.names, scale.gate, name_of, _title)
    vectors = {name_of(name): v for name, v in found.vectors.items()}
    known = np.flatnonzero(np.all([v.any(axis=1) for v in vectors.values()], axis=0))
    content = {
        "title": f"{subject} on {about.contract.name}",
        "subject": subject,
        "confidence": f"{found.boot.confidence:.0%}",
        "verdict": _verdict(found, subject),
        "prose": _prose(found, about, subject),
        "facts": _facts(found, about),
        **compared.comparison(found.lift, found.ablations, found.ablation_lift),
        "matched": _matched(found) if found.matched else None,
        "slices": compared.slices(found.slices, found.places, "Pairs"),
        "similarity": _similarity(found),
        "histogram": _histogram(found),
        "map": draw_map(vectors, about.items, known, about.seed),
        "neighbourhoods": draw_neighbourhoods(vectors, about.items, found.search, NEIGHBOURHOODS, about.seed),
        "curves": plots.training(about.curve),
        "lineage": about.lineage,
    }
    return render("vectors", content)


def _facts(found: RelatedStudy, about: About) -> list[tuple[str, str]]:
    pairs = found.search.pairs
    return [
        ("Split", about.dates),
        ("Held-out pairs", count(len(pairs))),
        ("Different queries", count(len(np.unique(pairs.query)))),
        ("Drawn by the bootstrap", f"{count(found.search.units)} {pairs.unit}"),
        ("Items to choose from", count(len(about.items) - 1)),
        ("Bootstrap resamples", count(found.boot.resamples)),
    ]


def _title(metric: str) -> str:
    return "MRR" if metric == "mrr" else metric.replace("hit@", "Hit-rate@")


def _matched(found: RelatedStudy) -> Table:
    rows = tuple(
        Row(
            (words(name_of(who)), *(number(m.get(n), f"matched.{who}.{n}") for n in ("beaten", "found"))),
            subject=who == found.subject,
        )
        for who, m in found.matched.items()
    )
    return Table(("", "Ranked below the right one", f"Right one in the first {FIRST_SHARE:.0%}"), rows)


def _similarity(found: RelatedStudy) -> Table:
    rows = tuple(
        Row(
            (
                words(name_of(who)),
                *(
                    Cell(f"{getattr(s, part):.3f}".replace("-", "−"), key=f"similarity.{who}.{part}")
                    for part in ("mean", "deviation", "kurtosis")
                ),
            ),
            subject=who == found.subject,
        )
        for who, s in found.spread.items()
    )
    return Table(("", "Mean", "Standard deviation", "Excess kurtosis"), rows)


def _histogram(found: RelatedStudy) -> str:
    shares = {name_of(who): (s.edges.tolist(), s.share.tolist()) for who, s in found.spread.items()}
    return plots.histogram(shares, "cosine of two items drawn at random")


def _verdict(found: RelatedStudy, subject: str) -> str:
    gate = found.search.scale.gate
    ours, k = found.headline[found.subject][gate], gate.removeprefix("hit@")
    lift = {INLINE[who]: m[gate] for who, m in found.lift.items() if who in INLINE}
    said = (
        f"For {ours.value:.1%} of the held-out pairs ({ours.low:.1%} to {ours.high:.1%}) {subject} has the item that "
        f"{_bond(found)} among the {k} nearest of the catalogue."
    )
    return " ".join([said, *prose.told_apart(lift), *_matched_verdict(found)])


def _ablations(found: RelatedStudy, subject: str) -> str:
    said = prose.ablations(subject, found.ablation_lift, found.search.scale.gate, "same pairs, seed and steps")
    return f"{said} {subject} itself is: {listing(found.itself)}." if found.itself else said


def _bond(found: RelatedStudy) -> str:
    """What the second item of a pair has to do with the first."""
    return "was on one board with the first" if found.search.together else "was chosen after the first"


def _matched_verdict(found: RelatedStudy) -> list[str]:
    if not found.matched:
        return []
    ours, theirs = (found.matched[who]["beaten"] for who in (found.subject, CONTENT))
    return [
        f"Of the items chosen about as often as the right one it ranks {ours.value:.0%} below it, content only "
        f"{theirs.value:.0%}; half would be chance."
    ]


def _prose(found: RelatedStudy, about: About, subject: str) -> dict[str, str]:
    scale, gate = found.search.scale, _title(found.search.scale.gate)
    return {
        "pairs": _pairs(found, about, subject),
        "measures": f"Hit-rate@K is the share of pairs whose second item is among the K items nearest to the first, "
        f"of all {count(len(about.items) - 1)}; no K is more than {LARGEST_SHARE:.0%} of them. MRR is Eq. 2 of the "
        f"PinSage paper, the mean of 1/⌈rank/{scale.mrr}⌉. Items of equal score count as if in random order.",
        "rivals": "Content only is the dot product of the item table's vectors, in place of which these would be read. "
        "Co-occurrence counts boards shared with the query; damped, it divides by the root of the item's own boards, "
        f"which makes it a cosine. {count(WALKS)} walks of {HOPS} hops, which restart at the query, rank by visits. "
        "What followed before is the weight of the training pairs from the query to the item, popularity of those that "
        "lead to it at all. They know the same graph and the same pairs. "
        "The shortened vectors are those that rankers read, in half precision.",
        "ablations": _ablations(found, subject),
        "matched": f"One list of what is popular finds much for any query. Here {count(found.matched_pairs)} "
        "pairs at random compete with the items chosen about as often as the right one in the training pairs, within a "
        f"factor of two, where there are {LEAST_ITEMS} of them: one half of these below it, and {FIRST_SHARE:.0%} of "
        "pairs found among the first, is chance.",
        "slices": f"{gate} where the graph knows little. A cold item is on no board before the split: it has its "
        f"content alone, and what counts cannot find it. Popular are the {POPULAR_SHARE:.0%} of items on most boards. "
        f"Parts with fewer than {LEAST_CHOSEN} pairs are left out.",
        "similarity": "Vectors that lie in a narrow cone are hard to tell apart and collide in an index by hashing: "
        "the wider the spread of similarities, the better (section 4.2 of the paper).",
        "map": f"A sample of items by t-SNE after PCA, the {COLOURS} most frequent categories of the sample in colour. "
        "Only what is near means something: distances between groups do not.",
        "neighbourhoods": f"{NEIGHBOURHOODS} queries at random of the held-out pairs, with what is nearest and its "
        f"cosine. Green is what {_bond(found)} in the split.",
        "training": "Means between two points of the training curve; validation at the end of each epoch.",
    }


def _pairs(found: RelatedStudy, about: About, subject: str) -> str:
    said = (
        f"{count(len(found.search.pairs))} pairs of the {about.split} split: an item, and one that {_bond(found)}. "
        f"Ranges are bootstrap intervals over {found.search.pairs.unit}"
    )
    if about.seen:
        return f"{said}. {subject} learned from these days or was stopped by them, which flatters it."
    return f"{said}. All of them are later than anything that {subject} learned from, and than every edge of its graph."
