"""How high a held-out item stands among the catalogue's: hit-rate@K and the scaled MRR (PinSage, section 4.1, Eq. 2).

Shapes: Q queries, N items, P (query, positive) pairs. Items with equal scores are in random order: a measure is its
expectation over these orders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MRR_SCALE = 100


@dataclass(frozen=True)
class Places:
    """Where positives stand.

    Attributes:
        above: int64 [P], candidates with a higher score than the positive.
        equal: int64 [P], those with its score, itself included.
    """

    above: Ints
    equal: Ints

    def hit(self, k: int) -> Floats:
        """Probability that the positive is among the first `k`. [P]."""
        share: Floats = np.clip((k - self.above) / self.equal, 0.0, 1.0)
        return share

    def reciprocal(self, scale: int = MRR_SCALE) -> Floats:
        """Expected 1 / ⌈rank / scale⌉. [P]."""
        most = int((self.above + self.equal).max(initial=0))
        running = np.concatenate([[0.0], np.cumsum(1.0 / np.ceil(np.arange(1, most + 1) / scale))])
        gained: Floats = (running[self.above + self.equal] - running[self.above]) / self.equal
        return gained

    @classmethod
    def concat(cls, parts: list[Places]) -> Places:
        return cls(np.concatenate([p.above for p in parts]), np.concatenate([p.equal for p in parts]))


def places(
    scores_QN: NDArray[np.float32],
    query_Q: NDArray[np.integer],
    owner_P: Ints,
    positive_P: Ints,
    candidate_N: NDArray[np.bool_] | None = None,
) -> Places:
    """Places of the positives among all items but the unknown one (row 0) and the query itself.

    Args:
        query_Q: row of each query; owner_P: place in it of each pair's query; positive_P: rows.
        candidate_N: count only these items (a fixed sample); the positive is always one.
    """
    counted = np.ones(scores_QN.shape[1], np.bool_) if candidate_N is None else candidate_N.copy()
    counted[0] = False
    above, equal = np.zeros(len(owner_P), np.int64), np.ones(len(owner_P), np.int64)
    _count(np.ascontiguousarray(scores_QN), query_Q.astype(np.int64), owner_P, positive_P, counted, above, equal)
    return Places(above, equal)


@njit(cache=True, nogil=True)
def _count(
    scores: NDArray[np.float32],
    query: Ints,
    owner: Ints,
    positive: Ints,
    counted: NDArray[np.bool_],
    above: Ints,
    equal: Ints,
) -> None:
    for p in range(len(owner)):
        row = scores[owner[p]]
        mine, itself, target = row[positive[p]], query[owner[p]], positive[p]
        higher, same = 0, 0
        for n in range(len(row)):
            if counted[n]:
                higher += row[n] > mine
                same += row[n] == mine
        # Branches are kept out of the loop: the two exceptions are mended after it.
        if counted[itself]:
            higher -= row[itself] > mine
            same -= row[itself] == mine
        if counted[target]:
            same -= 1
        above[p] = higher
        equal[p] = same + 1
