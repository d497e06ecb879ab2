import numpy as np
import pytest

from components.evaluation.bootstrap import Ratio
from components.evaluation.matched import deciles, matched
from components.evaluation.metrics import auc, hit_at, top_share


def problem(seed=0, requests=150, size=120):
    """Choices that follow popularity and nothing else."""
    rng = np.random.default_rng(seed)
    popularity = rng.exponential(1.0, requests * size)
    happened = rng.random(len(popularity)) < 0.01 * popularity
    return popularity, happened, np.arange(0, len(popularity) + 1, size)


def test_deciles_are_equal_parts_and_equal_values_share_one():
    values = np.random.default_rng(0).random(1000)
    assert (np.bincount(deciles(values)) == 100).all()
    assert len(set(deciles(np.ones(50)).tolist())) == 1


def test_negatives_come_from_the_same_request_and_decile():
    popularity, happened, offsets = problem()
    found = matched(popularity, happened, offsets, most=5, least=2)
    decile = deciles(popularity)
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    for start, stop, request in zip(found.offsets[:-1], found.offsets[1:], found.request, strict=True):
        rows = found.rows[start:stop]
        assert happened[rows].tolist() == found.chosen[start:stop].tolist() == [True] + [False] * (len(rows) - 1)
        assert 3 <= len(rows) <= 6
        assert len(set(rows.tolist())) == len(rows)
        assert set(owner[rows].tolist()) == {request}
        assert len(set(decile[rows].tolist())) == 1
    assert len(found.request) + found.left_out == happened.sum()


def test_popularity_knows_almost_nothing_once_negatives_are_as_popular():
    popularity, happened, offsets = problem()
    assert auc(popularity, happened, offsets).value > 0.7
    found = matched(popularity, happened, offsets, most=10, least=4)
    share = top_share(popularity[found.rows], found.offsets, 3)
    chance = np.mean(3 / np.diff(found.offsets))
    assert hit_at(share, found.chosen, found.offsets).value == pytest.approx(chance, abs=0.08)


def test_statistics_of_small_rankings_go_back_to_their_requests():
    popularity, happened, offsets = problem()
    found = matched(popularity, happened, offsets, most=5, least=2)
    ones = np.ones(len(found.request))
    back = found.by_request(Ratio(ones * 2, ones), len(offsets) - 1)
    assert back.value == 2
    assert back.denominator.sum() == len(found.request)


def test_nothing_to_match_leaves_all_out():
    found = matched(np.arange(4.0), np.array([True, False, False, False]), np.array([0, 4]))
    assert (len(found.rows), found.left_out) == (0, 1)
