import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from components.evaluation import bootstrap
from components.evaluation.bootstrap import Bootstrap, Ratio
from components.evaluation.metrics import auc


def means(values):
    return Ratio(values, np.ones_like(values))


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        drawn = Bootstrap(150, resamples=400, seed=trial).intervals([means(rng.exponential(1.0, 150))])[0]
        covered += drawn.low <= 1.0 <= drawn.high
    assert 0.88 <= covered / 200 <= 0.985


def test_drawing_users_keeps_the_coverage_where_requests_of_a_user_are_alike():
    rng = np.random.default_rng(0)
    user_of = np.repeat(np.arange(60), 10)
    covered = {"users": 0, "requests": 0}
    for trial in range(200):
        values = means(rng.normal(0, 1, 60)[user_of] + rng.normal(0, 0.3, 600))
        for drawn, groups in (("users", user_of), ("requests", None)):
            found = Bootstrap(600, resamples=300, seed=trial, user_of=groups).intervals([values])[0]
            covered[drawn] += found.low <= 0.0 <= found.high
    assert covered["users"] / 200 >= 0.88
    assert covered["requests"] / 200 < 0.6


def test_one_request_a_user_is_the_bootstrap_over_requests():
    values = means(np.random.default_rng(1).normal(size=50))
    alone = Bootstrap(50, resamples=20, user_of=np.arange(50))
    np.testing.assert_allclose(alone.samples([values]), Bootstrap(50, resamples=20).samples([values]))


def test_a_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 1, 500)
    a, b = means(hard + rng.normal(0.1, 0.1, 500)), means(hard + rng.normal(0, 0.1, 500))
    boot = Bootstrap(500, seed=3)
    difference = boot.differences([a], [b])[0]
    single = boot.intervals([a])[0]
    assert 0 < difference.low < 0.1 < difference.high
    assert (difference.high - difference.low) < (single.high - single.low) / 3


def test_chunks_do_not_change_the_resamples(monkeypatch):
    values = means(np.random.default_rng(2).normal(size=40))
    whole = Bootstrap(40, resamples=50).samples([values])
    monkeypatch.setattr(bootstrap, "CHUNK_CELLS", 40 * 7)
    np.testing.assert_allclose(Bootstrap(40, resamples=50).samples([values]), whole)


def test_a_statistic_without_any_request_is_unknown():
    empty = Ratio(np.zeros(5), np.zeros(5))
    interval = Bootstrap(5).intervals([empty])[0]
    assert np.isnan([interval.value, interval.low, interval.high]).all()


def test_the_same_seed_draws_the_same_resamples():
    values = means(np.random.default_rng(4).normal(size=30))
    assert Bootstrap(30, seed=1).intervals([values]) == Bootstrap(30, seed=1).intervals([values])
    assert Bootstrap(30, seed=1).intervals([values]) != Bootstrap(30, seed=2).intervals([values])


def test_the_bootstrap_of_auc_agrees_with_resampling_the_rows():
    """The slow twin: AUC of the rows of each resample, computed anew."""
    rng = np.random.default_rng(5)
    requests = 300
    offsets = np.arange(0, requests * 5 + 1, 5)
    user = np.repeat(rng.normal(0, 1, requests), 5)
    happened = rng.random(len(user)) < 1 / (1 + np.exp(1.5 - user))
    scores = user + 0.8 * happened + rng.normal(0, 1, len(user))
    slow = []
    for _ in range(400):
        picked = rng.integers(requests, size=requests)
        at = (offsets[picked][:, None] + np.arange(5)).ravel()
        slow.append(roc_auc_score(happened[at], scores[at]))
    fast = Bootstrap(requests, resamples=2000).samples([auc(scores, happened, offsets)])[:, 0]
    assert np.std(fast) == pytest.approx(np.std(slow), rel=0.12)
    assert np.mean(fast) == pytest.approx(np.mean(slow), abs=0.2 * np.std(slow))
