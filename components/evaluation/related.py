"""Rivals that find related items, measured on held-out pairs by hit-rate@K and scaled MRR (PinSage, section 4.1).

Shapes: Q queries, N items of the catalogue (row 0 unknown), P (query, positive) pairs, U users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse, stats

from components.evaluation.bootstrap import Ratio
from components.evaluation.retrieval import Places, places
from components.graph.bipartite import BipartiteGraph
from components.graph.walks import WalkConfig, Walker

Rows = NDArray[np.integer]
Scores = NDArray[np.float32]
Scorer = Callable[[Rows], Scores]
"""Rows of queries [Q] → scores of all items [Q, N]."""

TIE = 1e-6
"""Of the largest popularity: orders items that a rival scores alike."""


def by_vectors(vectors: NDArray[np.floating]) -> Scorer:
    """Dot product of vectors [N, d]; with content vectors, whose length is 1, this is 'Content only'."""
    table = np.ascontiguousarray(vectors, np.float32)
    return lambda rows: table[rows] @ table.T


def by_popularity(count: NDArray[Any]) -> Scorer:
    """A count of each item [N], such as its boards, whatever the query."""
    return lambda rows: np.repeat(np.asarray(count, np.float32)[None], len(rows), axis=0)


def times_chosen(pairs: pl.DataFrame, items: int) -> NDArray[np.float64]:
    """Weight of the pairs whose positive an item is. float64 [N]."""
    return np.bincount(pairs["positive"].to_numpy(), pairs["weight"].to_numpy(), items).astype(np.float64)


def by_followers(pairs: pl.DataFrame, items: int) -> Scorer:
    """Weight of the pairs that led from the query to each item; ties by `times_chosen`."""
    query, positive, weight = (pairs[c].to_numpy() for c in ("query", "positive", "weight"))
    led = sparse.csr_matrix((weight.astype(np.float32), (query, positive)), shape=(items, items))
    chosen = times_chosen(pairs, items)
    tie = (TIE * chosen / max(chosen.max(), 1e-9)).astype(np.float32)
    return lambda rows: led[rows].toarray() + tie


def by_shared_boards(graph: BipartiteGraph, damping: float = 0.0) -> Scorer:
    """Co-occurrence: boards shared with the query, over (the item's boards)^damping; ties by popularity.

    Damping 0 is the share of the query's boards that hold the item, 1 the share of the item's that hold the query.
    """
    shape = graph.items, graph.boards
    weights = np.ones(graph.edges, np.float32)
    edges = sparse.csr_matrix((weights, np.asarray(graph.item_boards), np.asarray(graph.item_offsets)), shape=shape)
    scale = np.maximum(graph.degree, 1).astype(np.float32) ** -damping
    tie = _tie(graph)
    return lambda rows: (edges[rows] @ edges.T).toarray() * scale + tie


def by_visits(graph: BipartiteGraph, config: WalkConfig) -> Scorer:
    """Visit counts of random walks from the query (Pixie); of the `config.top` most visited, ties by popularity."""
    walker, tie = Walker(graph, config, threads=1), _tie(graph)

    def score(rows: Rows) -> Scores:
        near = walker.walk(np.asarray(rows, np.int32)).neighbourhoods
        result = np.repeat(tie[None], len(rows), axis=0)
        result[np.arange(len(rows))[:, None], near.rows] += near.weights
        return result

    return score


def _tie(graph: BipartiteGraph) -> Scores:
    degree = graph.degree.astype(np.float32)
    return TIE * degree / max(float(degree.max()), 1.0)


@dataclass(frozen=True)
class HeldOut:
    """Held-out pairs.

    Attributes:
        query, positive: int64 [P], rows.
        user: int64 [P], 0 … U − 1: what intervals draw. A query stands for the user where none is known.
        weight: float64 [P].
        unit: what `user` numbers: 'users', 'queries' or 'users or queries'.
    """

    query: NDArray[np.int64]
    positive: NDArray[np.int64]
    user: NDArray[np.int64]
    weight: NDArray[np.float64]
    unit: str = "users"

    @classmethod
    def of(cls, pairs: pl.DataFrame, most: int | None = None, seed: int = 0) -> Self:
        """Columns `query`, `positive`, `user_hash` (0 = not known), `weight`; of more than `most` a fixed sample."""
        if most is not None and most < pairs.height:
            pairs = pairs[np.sort(np.random.default_rng(seed).permutation(pairs.height)[:most])]
        query, positive, weight = (pairs[c].to_numpy() for c in ("query", "positive", "weight"))
        owner = pairs["user_hash"].to_numpy()
        user = np.unique(np.where(owner > 0, owner, -query.astype(np.int64)), return_inverse=True)[1]
        unit = "users" if (owner > 0).all() else "users or queries" if owner.any() else "queries"
        return cls(query.astype(np.int64), positive.astype(np.int64), user, weight.astype(np.float64), unit)

    def __len__(self) -> int:
        return len(self.query)

    def some(self, kept_P: NDArray[np.bool_]) -> Self:
        """Only these pairs; users keep their numbers."""
        kept = {f: getattr(self, f)[kept_P] for f in ("query", "positive", "user", "weight")}
        return replace(self, **kept)

    @property
    def users(self) -> int:
        return int(self.user.max(initial=-1)) + 1

    def places(self, scorer: Scorer, candidate_N: NDArray[np.bool_] | None = None, queries: int = 256) -> Places:
        """Where the positives stand among all items, or among a fixed sample of them; `queries` scored at a time."""
        distinct, owner = np.unique(self.query, return_inverse=True)
        order = np.argsort(owner, kind="stable")
        above, equal = np.zeros(len(self), np.int64), np.ones(len(self), np.int64)
        for start in range(0, len(distinct), queries):
            rows = distinct[start : start + queries]
            a, b = np.searchsorted(owner[order], [start, start + queries])
            pairs = order[a:b]
            found = places(scorer(rows), rows, owner[pairs] - start, self.positive[pairs], candidate_N)
            above[pairs], equal[pairs] = found.above, found.equal
        return Places(above, equal)

    def by_user(self, value_P: NDArray[np.floating], kept_P: NDArray[np.bool_] | None = None) -> Ratio:
        """The weighted mean of a pair's value as a ratio over users, for the bootstrap: pairs of a user go together.

        Args:
            kept_P: only these pairs.
        """
        weight = self.weight if kept_P is None else self.weight * kept_P
        above = np.bincount(self.user, weight * value_P, self.users).astype(np.float64)
        return Ratio(above, np.bincount(self.user, weight, self.users).astype(np.float64))

    def measures(
        self, found: Places, ks: tuple[int, ...] = (10, 100, 500), kept_P: NDArray[np.bool_] | None = None
    ) -> dict[str, Ratio]:
        """hit@K for each K, and the scaled MRR (Eq. 2)."""
        values = {**{f"hit@{k}": found.hit(k) for k in ks}, "mrr": found.reciprocal()}
        return {name: self.by_user(value, kept_P) for name, value in values.items()}


@dataclass(frozen=True)
class Spread:
    """Cosine similarities of random pairs of different items (Figure 4).

    Attributes:
        edges: float64 [B + 1]; share: float64 [B] of the pairs between them.
        kurtosis: excess over a normal distribution's. A wide spread makes for few collisions in hashing.
    """

    edges: NDArray[np.float64]
    share: NDArray[np.float64]
    mean: float
    deviation: float
    kurtosis: float


def spread(vectors: NDArray[np.floating], pairs: int = 100_000, bins: int = 40, seed: int = 0) -> Spread:
    """Of items that have a vector. Row 0 is not an item."""
    rng = np.random.default_rng(seed)
    known = 1 + np.flatnonzero(np.any(vectors[1:], axis=1))
    a, b = rng.choice(known, pairs), rng.choice(known, pairs)
    a, b = a[a != b], b[a != b]
    left, right = (np.asarray(vectors[rows], np.float64) for rows in (a, b))
    cosine = (left * right).sum(1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    counts, edges = np.histogram(cosine, bins=bins, range=(-1, 1))
    return Spread(edges, counts / len(cosine), float(cosine.mean()), float(cosine.std()), float(stats.kurtosis(cosine)))
