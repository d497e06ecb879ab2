"""Vectors to look at: a sample of the catalogue as a map, and what lies nearest to single items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.history.items import ItemTable
from pinloom.evaluation.related import Search
from pinloom.reporting import plots
from pinloom.reporting.cases import Line

SAMPLE, COLOURS, ROUNDS = 800, 6, 500
NEAREST = 6
OUTLYING = 30
"""Numbers that PCA leaves to t-SNE, which would otherwise spend itself on noise."""


@dataclass(frozen=True)
class Neighbourhood:
    """An item and what lies nearest to it, by whose vectors."""

    query: str
    side: str
    nearest: list[tuple[str, list[Line]]]


def draw_map(vectors: Mapping[str, NDArray[np.float32]], items: ItemTable, pool: NDArray[np.integer], seed: int) -> str:
    """The same sample of the rows `pool` by each of the vectors, as SVG; '' without three items to draw."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(pool, min(SAMPLE, len(pool)), replace=False))
    if len(rows) < 3:
        return ""
    groups = [c or "none" for c in items.category.gather(rows)]
    legend = [name for name, _ in Counter(groups).most_common(COLOURS)]
    return plots.atlas({name: (flat(v[rows], seed), groups) for name, v in vectors.items()}, legend)


def flat(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """t-SNE of the directions of some vectors, after PCA. [S, d] → [S, 2]."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    kept = PCA(min(OUTLYING, *unit.shape), random_state=seed).fit_transform(unit)
    near = min(30.0, (len(unit) - 1) / 3)
    found: NDArray[np.float64] = (
        TSNE(perplexity=near, max_iter=ROUNDS, random_state=seed).fit_transform(kept).astype(np.float64)
    )
    return found


def draw_neighbourhoods(
    vectors: Mapping[str, NDArray[np.float32]], items: ItemTable, search: Search, count: int, seed: int
) -> list[Neighbourhood]:
    """`count` queries of the held-out pairs at random, each with what is nearest by each of the vectors."""
    distinct = np.unique(search.pairs.query)
    drawn = np.random.default_rng(seed).choice(distinct, min(count, len(distinct)), replace=False)
    return [_neighbourhood(vectors, items, search, int(q)) for q in drawn]


def _neighbourhood(
    vectors: Mapping[str, NDArray[np.float32]], items: ItemTable, search: Search, query: int
) -> Neighbourhood:
    chosen = set(search.pairs.positive[search.pairs.query == query].tolist())
    nearest = [(name, _lines(v, items, query, chosen)) for name, v in vectors.items()]
    bond = "on one board" if search.together else "chosen next"
    return Neighbourhood(_title(items, query), f"{len(chosen)} {bond}", nearest)


def _lines(vectors: NDArray[np.float32], items: ItemTable, query: int, chosen: set[int]) -> list[Line]:
    score = vectors @ vectors[query]
    score[[0, query]] = -np.inf
    first = np.argsort(-score, kind="stable")[:NEAREST]
    length = np.linalg.norm(vectors[[query, *first]], axis=1)
    cosine = score[first] / np.maximum(length[0] * length[1:], 1e-9)
    return [
        Line(_title(items, int(row)), f"{c:.2f}", str(i + 1), int(row) in chosen)
        for i, (row, c) in enumerate(zip(first, cosine, strict=True))
    ]


def _title(items: ItemTable, row: int) -> str:
    name = items.title[row] or items.ids[row]
    category = items.category[row]
    return f"{name} · {category}" if category and category not in name else name
