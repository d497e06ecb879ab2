"""How different the first k candidates are from one another, and how much of the catalogue they show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.evaluation.bootstrap import Ratio
from components.evaluation.metrics import Bools, Ints, request_of


def first_k(scores: NDArray[np.floating], offsets: Ints, k: int, seed: int = 0) -> Bools:
    """Whether each row is among the first `k` of its request, ties in a seeded random order. [N] bool."""
    owner = request_of(offsets)
    order = np.lexsort((np.random.default_rng(seed).random(len(scores)), -scores, owner))
    first = np.zeros(len(scores), dtype=bool)
    first[order] = np.arange(len(order)) - offsets[owner[order]] < k
    return first


def distinct_groups(shown: Bools, group: NDArray[np.integer], offsets: Ints) -> Ratio:
    """Mean number of different groups (an item's top-level category) among the shown rows of a request.

    TransAct, section 4.4 counts unique top-level interests. Group 0 is unknown and not counted.
    """
    counted = shown & (group > 0)
    pairs = np.unique(np.stack([request_of(offsets)[counted], group[counted].astype(np.int64)]), axis=1)
    requests = len(offsets) - 1
    return Ratio(np.bincount(pairs[0], minlength=requests).astype(np.float64), np.ones(requests))


def coverage(shown: Bools, item: NDArray[np.generic]) -> float:
    """Share of the different candidate items that are shown to anybody."""
    return float(len(np.unique(item[shown])) / len(np.unique(item)))
