"""How high held-out items stand by vectors and by their rivals: everything that the report of vectors measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.errors import UserError
from components.evaluation.bootstrap import Bootstrap, Ratio
from components.evaluation.related import (
    HeldOut,
    Scorer,
    Spread,
    by_followers,
    by_popularity,
    by_shared_boards,
    by_vectors,
    by_visits,
    spread,
    times_chosen,
)
from components.evaluation.retrieval import MRR_SCALE, Places
from components.graph.bipartite import BipartiteGraph
from components.graph.walks import WalkConfig
from pinloom.evaluation.measure import Intervals, Slice, lifts, measure, nested, sliced

COMPACT = "compact"
OTHERWISE = {"pca": "compact, PCA", "trained": "compact, trained"}
"""Short vectors made another way than the subject's, by that way."""

CONTENT, SHARED, DAMPED = "content", "co-occurrence", "damped co-occurrence"
WALK, FOLLOWERS, POPULARITY = "walk", "followers", "popularity"
KS = (10, 50, 500)
LARGEST_SHARE = 0.05
"""Of the catalogue that the first K may be."""

DAMPING = 0.5
"""Of the co-occurrence that forgives an item for being on few boards: the cosine of two items' boards."""

WALKS, HOPS = 1_000, 16
"""Of the walk from each query."""

MATCHED_PAIRS, LEAST_ITEMS = 5_000, 20
"""Pairs matched at most; items as popular that a pair needs."""

FIRST_SHARE = 0.01
"""Of the items as popular, in which a positive counts as found."""

POPULAR_SHARE = 0.01
"""Of the items on boards, which are called popular."""

Vectors = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Scale:
    """What counts as high in a catalogue of some size.

    Attributes:
        ks: of hit-rate@K, ascending; none is more than `LARGEST_SHARE` of the catalogue.
        mrr: ranks that Eq. 2 counts as one.
    """

    ks: tuple[int, ...]
    mrr: int

    @classmethod
    def of(cls, items: int) -> Scale:
        most = max(1, int(LARGEST_SHARE * items))
        return cls(tuple(sorted({min(k, most) for k in KS})), max(1, min(MRR_SCALE, items // 500)))

    @property
    def names(self) -> tuple[str, ...]:
        return (*(f"hit@{k}" for k in self.ks), "mrr")

    @property
    def gate(self) -> str:
        """What decides about promotion: hit-rate at the middle K."""
        return f"hit@{self.ks[len(self.ks) // 2]}"


@dataclass(frozen=True)
class Search:
    """Held-out pairs as a question: how high does the positive stand for the query among all items?

    Attributes:
        together: the two items of a pair lie on one board; else the positive was chosen after the query.
    """

    pairs: HeldOut
    scale: Scale
    together: bool = False

    @property
    def units(self) -> int:
        return self.pairs.users

    @property
    def user_of(self) -> None:
        """The units are drawn as they are."""

    def lower_is_better(self, name: str) -> bool:
        return False

    def statistic(self, name: str, scores: Places) -> Ratio:
        return self.pairs.by_user(self.value(name, scores))

    def value(self, name: str, found: Places) -> NDArray[np.float64]:
        """One metric of each pair. [P].

        Raises:
            UserError: no such metric.
        """
        kind, _, k = name.partition("@")
        if kind == "hit" and k.isdecimal() and int(k):
            return found.hit(int(k))
        if name == "mrr":
            return found.reciprocal(self.scale.mrr)
        raise UserError(f"there is no metric '{name}' of vectors", "use hit@K or mrr")


@dataclass(frozen=True)
class RelatedStudy:
    """The measured results.

    Attributes:
        places: where the positives stand, the subject first, then its rivals.
        vectors: of the subject and of the content, [N, d].
        headline, ablations: who → metric → interval.
        lift, ablation_lift: rival → metric → paired difference subject − rival.
        matched: who → 'beaten' and 'found' among items as popular as the positive.
        matched_pairs: how many could be matched.
        spread: of the similarities of random items, by whose vectors.
        itself: ablations that the subject already is.
    """

    subject: str
    search: Search
    places: dict[str, Places]
    vectors: dict[str, Vectors]
    boot: Bootstrap
    headline: Intervals
    lift: Intervals
    slices: list[Slice]
    matched: Intervals
    matched_pairs: int
    spread: dict[str, Spread]
    ablations: Intervals = field(default_factory=dict)
    ablation_lift: Intervals = field(default_factory=dict)
    itself: tuple[str, ...] = ()


def rivals(graph: BipartiteGraph, learned: pl.DataFrame, content: Vectors, walk: WalkConfig) -> dict[str, Scorer]:
    """What counts and compares, but does not learn.

    Args:
        learned: the pairs that the subject was trained on.
        walk: from each query.
    """
    return {
        CONTENT: by_vectors(content),
        SHARED: by_shared_boards(graph),
        DAMPED: by_shared_boards(graph, DAMPING),
        WALK: by_visits(graph, walk),
        FOLLOWERS: by_followers(learned, len(content)),
        POPULARITY: by_popularity(times_chosen(learned, len(content))),
    }


def study(
    subject: str,
    search: Search,
    graph: BipartiteGraph,
    learned: pl.DataFrame,
    vectors: Mapping[str, Vectors],
    ablations: Mapping[str, Places],
    boot: Bootstrap,
) -> RelatedStudy:
    """Measure the vectors of `subject` against all others.

    Args:
        learned: the pairs that it was trained on.
        vectors: of the subject, its short ones (`COMPACT`), short ones made otherwise and of the content (`CONTENT`).
        ablations: places by the subject with one choice changed.
    """
    scorers = {name: by_vectors(v) for name, v in vectors.items() if name != CONTENT}
    walk = WalkConfig(top=max(search.scale.ks), walks=WALKS, length=HOPS, band_size=1)
    scorers |= rivals(graph, learned, vectors[CONTENT], walk)
    places = {name: search.pairs.places(scorer) for name, scorer in scorers.items()}
    names = search.scale.names
    changed = {subject: places[subject], **ablations} if ablations else {}
    both = {name: vectors[name] for name in (subject, CONTENT)}
    matched, matched_pairs = _matched(search.pairs, scorers, times_chosen(learned, len(graph.degree)), boot)
    return RelatedStudy(
        subject=subject,
        search=search,
        places=places,
        vectors=both,
        boot=boot,
        headline=measure(search, places, names, boot),
        lift=lifts(search, subject, places, names, boot),
        slices=_slices(search, places, graph, boot),
        matched=matched,
        matched_pairs=matched_pairs,
        spread={name: spread(v) for name, v in both.items()},
        ablations=measure(search, changed, names, boot) if changed else {},
        ablation_lift=lifts(search, subject, changed, names, boot) if changed else {},
    )


def _matched(
    pairs: HeldOut, scorers: Mapping[str, Scorer], chosen_N: NDArray[np.float64], boot: Bootstrap
) -> tuple[Intervals, int]:
    """Intervals of `matched_by_popularity`, and how many pairs could be matched."""
    found: dict[tuple[str, str], Ratio] = {}
    count = 0
    for who, scorer in scorers.items():
        ratios, count = matched_by_popularity(pairs, scorer, chosen_N, boot.seed)
        found |= {(who, name): ratio for name, ratio in ratios.items()}
    return nested(found, boot), count


def matched_by_popularity(
    pairs: HeldOut, scorer: Scorer, chosen_N: NDArray[np.float64], seed: int = 0
) -> tuple[dict[str, Ratio], int]:
    """The positive among items chosen about as often (within a factor of two), for a fixed sample of the pairs.

    Returns: 'beaten', the share of these items that are below it, and 'found', whether it is in their first
        `FIRST_SHARE`; how many pairs could be matched.
    """
    band_N = np.where(chosen_N > 0, np.floor(np.log2(np.maximum(chosen_N, 1e-9))), -np.inf)
    band_N[0] = np.nan
    sampled = np.zeros(len(pairs), bool)
    sampled[np.random.default_rng(seed).permutation(len(pairs))[:MATCHED_PAIRS]] = True
    kept, beaten, first = np.zeros(len(pairs), bool), np.zeros(len(pairs)), np.zeros(len(pairs))
    for band in np.unique(band_N[1:]):
        asked, alike = sampled & (band_N[pairs.positive] == band), band_N == band
        if asked.any() and alike.sum() >= LEAST_ITEMS:
            kept |= asked
            beaten[asked], first[asked] = _among(pairs.some(asked), scorer, alike)
    return {"beaten": pairs.by_user(beaten, kept), "found": pairs.by_user(first, kept)}, int(kept.sum())


def _among(pairs: HeldOut, scorer: Scorer, alike_N: Bools) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of these items below the positive, equal ones counting half, and whether it is in their first. [P], [P]."""
    places = pairs.places(scorer, alike_N)
    others = alike_N.sum() - 1 - alike_N[pairs.query]
    beaten = 1 - (places.above + (places.equal - 1) / 2) / others
    return beaten, places.hit(int(np.ceil(FIRST_SHARE * others.max())))


def _slices(search: Search, places: Mapping[str, Places], graph: BipartiteGraph, boot: Bootstrap) -> list[Slice]:
    """The hit-rate of the gate in parts of the pairs."""

    def hits(found: Places, part: Bools) -> Ratio:
        return search.pairs.by_user(search.value(search.scale.gate, found), part)

    return sliced(_masks(search.pairs, graph), places, hits, boot)


def _masks(pairs: HeldOut, graph: BipartiteGraph) -> dict[str, Bools]:
    """Parts of the pairs by how well the graph knows the two items."""
    degree = np.asarray(graph.degree)
    query, positive = degree[pairs.query], degree[pairs.positive]
    popular = positive >= np.quantile(degree[degree > 0], 1 - POPULAR_SHARE)
    return {
        "all pairs": np.ones(len(pairs), bool),
        "cold query": query == 0,
        "cold positive": positive == 0,
        "neither cold": (query > 0) & (positive > 0),
        "popular positive": popular,
        "other positive": ~popular,
    }
