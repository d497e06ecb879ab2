import numpy as np

from components.evaluation.diversity import coverage, distinct_groups, first_k

OFFSETS = np.array([0, 4, 7])
SCORES = np.array([4.0, 3.0, 2.0, 1.0, 1.0, 5.0, 3.0])


def test_the_first_k_of_each_request_are_shown():
    assert np.flatnonzero(first_k(SCORES, OFFSETS, 2)).tolist() == [0, 1, 5, 6]


def test_ties_are_broken_at_random_by_seed():
    flat = np.zeros(1000)
    offsets = np.arange(0, 1001, 10)
    places = np.flatnonzero(first_k(flat, offsets, 1)) % 10
    assert len(np.unique(places)) == 10, "the stored order decides nothing"
    assert (first_k(flat, offsets, 1, seed=1) == first_k(flat, offsets, 1, seed=1)).all()


def test_groups_are_counted_once_and_the_unknown_never():
    shown = first_k(SCORES, OFFSETS, 3)
    group = np.array([7, 7, 8, 9, 0, 5, 0])
    found = distinct_groups(shown, group, OFFSETS)
    assert found.numerator.tolist() == [2, 1]
    assert found.value == 1.5


def test_coverage_is_over_the_items_that_could_be_shown():
    item = np.array([1, 2, 3, 4, 1, 2, 5])
    assert coverage(first_k(SCORES, OFFSETS, 1), item) == 2 / 5
