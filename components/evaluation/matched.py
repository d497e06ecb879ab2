"""Negatives as popular as what was chosen: what a ranker knows beyond popularity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluation.bootstrap import Ratio
from components.evaluation.metrics import Bools, Ints, request_of


def deciles(popularity: NDArray[np.floating]) -> NDArray[np.int8]:
    """Decile (0 to 9) of each value among all; equal values share one. [N]."""
    _, place, count = np.unique(popularity, return_inverse=True, return_counts=True)
    middle = (np.cumsum(count) - count / 2) / max(1, len(popularity))
    return np.minimum(middle * 10, 9).astype(np.int8)[place]


@dataclass(frozen=True)
class Matched:
    """One small ranking per chosen row: itself, then negatives of its request in its popularity decile.

    Attributes:
        rows: rows of the ranking problem that these were drawn from, [M].
        offsets: where the rows of each of the P small rankings begin, [P + 1].
        chosen: whether a row is the chosen one, [M].
        request: request that each small ranking belongs to, [P].
        left_out: chosen rows with too few such negatives.
    """

    rows: Ints
    offsets: Ints
    chosen: Bools
    request: Ints
    left_out: int

    def by_request(self, statistic: Ratio, requests: int) -> Ratio:
        """A statistic of the P small rankings as one of the R requests, which is what a bootstrap resamples."""
        above, below = (np.bincount(self.request, s, requests) for s in (statistic.numerator, statistic.denominator))
        return Ratio(above.astype(np.float64), below.astype(np.float64))


def matched(
    popularity: NDArray[np.floating],
    happened: Bools,
    offsets: Ints,
    most: int = 40,
    least: int = 5,
    seed: int = 0,
) -> Matched:
    """Match every chosen row with up to `most` negatives drawn at random, and leave it out with fewer than `least`.

    Args:
        popularity: of the item as of the request, [N].
        happened: whether the row was chosen, [N].
    """
    rng = np.random.default_rng(seed)
    decile, owner = deciles(popularity), request_of(offsets)
    chosen = np.flatnonzero(happened)
    groups, requests = [], []
    for row in chosen:
        start, stop = offsets[owner[row]], offsets[owner[row] + 1]
        equals = start + np.flatnonzero((decile[start:stop] == decile[row]) & ~happened[start:stop])
        if len(equals) >= least:
            drawn = rng.choice(equals, min(most, len(equals)), replace=False)
            groups.append(np.concatenate([[row], drawn]))
            requests.append(owner[row])
    size = np.array([len(g) for g in groups], dtype=np.int64)
    begin = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    first = np.zeros(begin[-1], dtype=bool)
    first[begin[:-1]] = True
    rows = np.concatenate(groups) if groups else np.empty(0, np.int64)
    return Matched(rows, begin, first, np.array(requests, np.int64), len(chosen) - len(groups))
