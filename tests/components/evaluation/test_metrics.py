import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from components.evaluation.metrics import (
    auc,
    calibration,
    calibration_bins,
    found_at,
    hit_at,
    hits_at,
    log_loss,
    per_request,
    recall_at,
    reciprocal_rank,
    top_share,
)

ONE = np.array([0, 4])


def rows(seed: int, requests: int = 200, levels: int = 12):
    """Requests of 1 to 9 rows with tied scores that know something about the labels."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 10, requests))])
    happened = rng.random(offsets[-1]) < 0.3
    scores = np.round((rng.random(offsets[-1]) + 0.4 * happened) * levels) / levels
    return scores, happened, offsets


def hits_over_all_orders(scores, happened, k):
    """The slow twin: every order of the candidates that sorts the scores, each as likely as any other."""
    orders = [o for o in itertools.permutations(range(len(scores))) if (np.diff(scores[list(o)]) <= 0).all()]
    return np.mean([happened[list(o[:k])].sum() for o in orders])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6), st.integers(1, 4))
def test_hits_are_the_mean_over_all_orders_of_tied_candidates(candidates, k):
    scores = np.array([float(s) for s, _ in candidates])
    happened = np.array([h for _, h in candidates])
    offsets = np.array([0, len(scores)])
    hits = hit_at(top_share(scores, offsets, k), happened, offsets)
    if happened.any():
        assert hits.value == pytest.approx(hits_over_all_orders(scores, happened, k))
    else:
        assert np.isnan(hits.value)


def test_hits_count_every_chosen_item_of_the_first_k():
    share = top_share(np.array([4.0, 3.0, 2.0, 1.0]), ONE, 3)
    happened = np.array([True, True, False, True])
    assert hit_at(share, happened, ONE).value == 2
    assert recall_at(share, happened, ONE).value == pytest.approx(2 / 3)


def test_requests_in_which_nothing_happened_are_left_out():
    scores, offsets = np.array([1.0, 2.0, 1.0, 2.0]), np.array([0, 2, 4])
    happened = np.array([False, True, False, False])
    share = top_share(scores, offsets, 1)
    assert [m(share, happened, offsets).value for m in (hit_at, recall_at, found_at)] == [1, 1, 1]
    assert reciprocal_rank(scores, happened, offsets).value == 1


def test_an_empty_request_changes_nothing():
    scores, happened, offsets = rows(1)
    gap = np.insert(offsets, 7, offsets[7])
    for metric in (hit_at, recall_at, found_at):
        kept = metric(top_share(scores, offsets, 3), happened, offsets).value
        assert metric(top_share(scores, gap, 3), happened, gap).value == pytest.approx(kept)
    assert per_request(happened, gap)[7] == 0


def test_reciprocal_rank_takes_the_best_chosen_item():
    happened = np.array([False, True, False, True])
    assert reciprocal_rank(np.array([4.0, 3.0, 2.0, 1.0]), happened, ONE).value == pytest.approx(1 / 2)
    assert reciprocal_rank(np.zeros(4), happened, ONE).value == pytest.approx(1 / 2.5), "ties share their average rank"


@pytest.mark.parametrize("weighted", [False, True])
def test_auc_agrees_with_scikit_learn(weighted):
    scores, happened, offsets = rows(2)
    weights = np.random.default_rng(3).random(len(scores)) + 0.1 if weighted else None
    ours = auc(scores, happened, offsets, weights).value
    assert ours == pytest.approx(roc_auc_score(happened, scores, sample_weight=weights))


def test_auc_without_a_negative_is_unknown():
    assert np.isnan(auc(np.arange(4.0), np.ones(4, bool), ONE).value)


def test_log_loss_agrees_with_scikit_learn():
    _, happened, offsets = rows(4)
    rng = np.random.default_rng(5)
    p, w = rng.random(len(happened)), rng.random(len(happened))
    expected = sklearn_log_loss(happened, p, sample_weight=w)
    assert log_loss(p, happened, offsets, w).value == pytest.approx(expected)


def test_weights_undo_the_sampling_of_negatives():
    rng = np.random.default_rng(6)
    truth = rng.beta(1, 30, 200_000)
    happened = rng.random(len(truth)) < truth
    kept = happened | (rng.random(len(truth)) < 0.1)
    p, y, w = truth[kept], happened[kept], np.where(happened, 1.0, 10.0)[kept]
    offsets = np.arange(0, len(p) + 1, 1)
    assert calibration(p, y, offsets, w).value == pytest.approx(1, abs=0.03)
    assert calibration(p, y, offsets, np.ones(len(p))).value < 0.2, "unweighted, the same predictions look far too low"
    for predicted, observed in calibration_bins(p, y, offsets, w)[3:]:
        assert observed.value == pytest.approx(predicted, rel=0.2)


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="1 of 4 scores are not finite"):
        top_share(np.array([1.0, np.nan, 0.0, 2.0]), ONE, 3)


def test_hits_of_batches_add_up_to_hits_of_the_whole():
    scores, happened, offsets = rows(8, requests=60)
    labels = np.stack([happened, np.random.default_rng(9).random(len(scores)) < 0.2], axis=1)
    utility = torch.tensor([1.0, -1.0])
    sums = torch.zeros(2, 3, dtype=torch.float64)
    for first, last in ((0, 20), (20, 60)):
        a, b = offsets[first], offsets[last]
        owner = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
        batch = (torch.tensor(scores[a:b]), torch.tensor(labels[a:b]).float(), torch.tensor(owner))
        sums += torch.stack(hits_at(*batch, last - first, utility))
    share = top_share(scores.astype(np.float32), offsets, 3)
    expected = [hit_at(share, y, offsets).value for y in (labels[:, 0], labels[:, 0], labels[:, 1])]
    assert (sums[0] / sums[1]).tolist() == pytest.approx(expected)
