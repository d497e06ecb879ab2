"""Ranking and probability metrics over requests. Each is a `Ratio` per request, ready for the bootstrap.

Rows of R requests lie one after another; `offsets` [R + 1] says where each begins. Candidates with equal scores are
in random order: a metric is its expectation over these orders, so that stored order is never information.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.evaluation.bootstrap import Floats, Ratio

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1 in log-loss."""


def request_of(offsets: Ints) -> Ints:
    """Index of the request of each row. [R + 1] → [N]."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def per_request(values: NDArray[np.generic], offsets: Ints) -> Floats:
    """Sum of the rows of each request. [N] → [R]; 0 for a request without rows."""
    running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    sums: Floats = running[offsets[1:]] - running[offsets[:-1]]
    return sums


def _ties(scores: NDArray[np.floating], offsets: Ints) -> tuple[Ints, Ints]:
    """For each row, the candidates of its request that are strictly above it, and those equal to it with itself."""
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite")
    owner = request_of(offsets)
    order = np.lexsort((-scores, owner))
    ordered, owners = scores[order], owner[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]) | (owners[1:] != owners[:-1])
    group = np.cumsum(fresh) - 1
    start = np.flatnonzero(fresh)
    size = np.diff(np.append(start, len(order)))
    above, equal = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    above[order] = start[group] - offsets[owners]
    equal[order] = size[group]
    return above, equal


def top_share(scores: NDArray[np.floating], offsets: Ints, k: int) -> Floats:
    """Probability that each row is among the first `k` of its request. [N]."""
    above, equal = _ties(scores, offsets)
    share: Floats = np.clip((k - above) / np.maximum(equal, 1), 0.0, 1.0)
    return share


def hit_at(share: Floats, happened: Bools, offsets: Ints) -> Ratio:
    """HIT@k: rows of the first k on which the action happened, per request in which it happened at all.

    TransAct, section 4.1.2 counts such rows by the order of the final score, whatever the head. Requests without
    the action say nothing about an order and are left out.

    Args:
        share: `top_share` of the final score, [N].
        happened: label of one head, or of any positive one, [N].
    """
    count = per_request(happened, offsets)
    return Ratio(per_request(share * happened, offsets), (count > 0).astype(np.float64))


def hits_at(
    scores_B: Tensor, labels_BH: Tensor, row_of_B: Tensor, requests: int, utility_H: Tensor, k: int = 3
) -> tuple[Tensor, Tensor]:
    """`hit_at` of one batch, for sums over batches: any head of positive utility first, then each head.

    Args:
        row_of_B: request of each candidate, not decreasing.

    Returns:
        (hits, requests in which the action happened), both float64 [1 + H].
    """
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row_of_B.cpu().numpy(), minlength=requests))])
    share = top_share(scores_B.float().cpu().numpy(), offsets, k)
    labels = labels_BH.cpu().numpy() > 0
    chosen = labels[:, utility_H.cpu().numpy() > 0].any(axis=1)
    found = [hit_at(share, happened, offsets) for happened in (chosen, *labels.T)]
    return torch.tensor([r.numerator.sum() for r in found]), torch.tensor([r.denominator.sum() for r in found])


def recall_at(share: Floats, happened: Bools, offsets: Ints) -> Ratio:
    """Mean over requests of the share of what happened that is among the first k."""
    count = per_request(happened, offsets)
    found = per_request(share * happened, offsets)
    return Ratio(np.divide(found, count, out=np.zeros_like(found), where=count > 0), (count > 0).astype(np.float64))


def found_at(share: Floats, happened: Bools, offsets: Ints) -> Ratio:
    """Share of all rows on which the action happened that are among the first k of their request."""
    return Ratio(per_request(share * happened, offsets), per_request(happened, offsets))


def reciprocal_rank(scores: NDArray[np.floating], happened: Bools, offsets: Ints) -> Ratio:
    """MRR of the best row on which the action happened; rows with equal scores share their average rank."""
    above, equal = _ties(scores, offsets)
    inverse = np.where(happened, 1.0 / (above + (equal + 1) / 2), 0.0)
    some = per_request(happened, offsets) > 0
    best = np.zeros(len(offsets) - 1)
    np.maximum.at(best, request_of(offsets), inverse)
    return Ratio(best, some.astype(np.float64))


def auc(scores: NDArray[np.floating], happened: Bools, offsets: Ints, weights: Floats | None = None) -> Ratio:
    """Area under the ROC curve over all rows, as the mean of one pseudo-value per request.

    AUC is no ratio of sums; its first-order expansion is (Hájek's projection: what the rows of a request add to the
    positives' and to the negatives' mean placement). Its bootstrap agrees with resampling the rows themselves.

    Args:
        weights: of the rows, [N]; 1 / probability with which each was kept.
    """
    requests = len(offsets) - 1
    w = np.ones(len(scores)) if weights is None else weights.astype(np.float64)
    positive, negative = w * happened, w * ~happened
    total_positive, total_negative = positive.sum(), negative.sum()
    if not total_positive or not total_negative:
        return Ratio(np.zeros(requests), np.zeros(requests))
    below = _mass_below(scores, negative) / total_negative
    beaten = 1 - _mass_below(scores, positive) / total_positive
    value = float((positive * below).sum() / total_positive)
    influence = positive * (below - value) / total_positive + negative * (beaten - value) / total_negative
    return Ratio(value + requests * per_request(influence, offsets), np.ones(requests))


def _mass_below(scores: NDArray[np.floating], mass: Floats) -> Floats:
    """Sum of `mass` over rows with a lower score, plus half of that with an equal one. [N]."""
    distinct, place = np.unique(scores, return_inverse=True)
    at = np.bincount(place, weights=mass, minlength=len(distinct))
    below: Floats = (np.cumsum(at) - at / 2)[place]
    return below


def log_loss(predicted: NDArray[np.floating], happened: Bools, offsets: Ints, weights: Floats) -> Ratio:
    """Mean binary cross-entropy over rows, in nats."""
    p = np.clip(predicted.astype(np.float64), EPSILON, 1 - EPSILON)
    loss = -np.where(happened, np.log(p), np.log1p(-p))
    return Ratio(per_request(weights * loss, offsets), per_request(weights, offsets))


def calibration(predicted: NDArray[np.floating], happened: Bools, offsets: Ints, weights: Floats) -> Ratio:
    """Predicted over observed: 1 is right, above 1 promises too much."""
    return Ratio(per_request(weights * predicted, offsets), per_request(weights * happened, offsets))


def calibration_bins(
    predicted: NDArray[np.floating], happened: Bools, offsets: Ints, weights: Floats, bins: int = 10
) -> list[tuple[float, Ratio]]:
    """Mean prediction and observed rate of rows in bins of equal weight by prediction, lowest first."""
    order = np.argsort(predicted, kind="stable")
    running = np.cumsum(weights[order])
    place = np.empty(len(order), np.int64)
    place[order] = np.minimum((running - weights[order] / 2) / running[-1] * bins, bins - 1).astype(np.int64)
    curve = []
    for b in range(bins):
        w = weights * (place == b)
        if w.sum() > 0:
            observed = Ratio(per_request(w * happened, offsets), per_request(w, offsets))
            curve.append((float((w * predicted).sum() / w.sum()), observed))
    return curve
