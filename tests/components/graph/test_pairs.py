"""Pairs against a plain loop over moments, and what must never be in them."""

from collections import Counter, defaultdict
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.graph.pairs import Choices, Pairs, board_pairs, consecutive_pairs

HOUR = 3_600_000_000
rows = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(0, 8)), max_size=40)


def choices(log) -> Choices:
    """From (user, item, hour) in stored order."""
    log = sorted(log, key=lambda r: (r[0], r[2]))
    users, items, hours = (np.array([r[k] for r in log], np.int64) for k in range(3))
    return Choices(users, items.astype(np.int32), hours * HOUR)


def listed(pairs: Pairs) -> list[tuple[int, int, int, int]]:
    """(user, query, positive, hour)."""
    hours = pairs.timestamp // HOUR
    return list(zip(*(c.tolist() for c in (pairs.user, pairs.query, pairs.positive, hours)), strict=True))


def moments(log):
    """user → [(hour, items)] in order of time."""
    found: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for user, item, hour in log:
        found[user][hour].add(item)
    return {user: sorted(at.items()) for user, at in found.items()}


@settings(max_examples=200, deadline=None)
@given(rows, st.integers(1, 5))
def test_unordered_pairs_lead_from_each_moment_to_the_next_one_within_the_window(log, window):
    pairs = consecutive_pairs(choices(log), ordered=False, window_us=window * HOUR, cap=1000)
    expected = [
        (user, q, i, after)
        for user, times in moments(log).items()
        for (before, a), (after, b) in pairwise(times)
        if after - before <= window
        for q, i in product(a, b)
        if q != i
    ]
    assert sorted(listed(pairs)) == sorted(expected)
    steps = Counter((user, hour) for user, _, _, hour in expected)
    for (user, _, _, hour), weight in zip(listed(pairs), pairs.weight, strict=True):
        assert weight == pytest.approx(1 / steps[user, hour])


@settings(max_examples=200, deadline=None)
@given(rows, st.integers(1, 5))
def test_ordered_pairs_are_neighbours_in_the_log_with_repeats_taken_as_one(log, window):
    got = consecutive_pairs(choices(log), ordered=True, window_us=window * HOUR, cap=3)
    expected = []
    for user in {r[0] for r in log}:
        own = sorted((r for r in log if r[0] == user), key=lambda r: r[2])
        expected += [
            (user, q, i, after)
            for (_, q, before), (_, i, after) in pairwise(own)
            if q != i and 0 < after - before <= window
        ]
    assert sorted(listed(got)) == sorted(expected)
    assert (got.weight == 1).all()


@settings(max_examples=100, deadline=None)
@given(rows, st.integers(1, 4), st.randoms(use_true_random=False))
def test_capped_pairs_are_some_of_all_and_do_not_depend_on_the_stored_order_of_ties(log, cap, random):
    pairs_of = partial(consecutive_pairs, ordered=False, window_us=4 * HOUR)
    everything = set(listed(pairs_of(choices(log), cap=1000)))
    capped = pairs_of(choices(log), cap=cap)
    assert set(listed(capped)) <= everything
    assert max(Counter((u, h) for u, _, _, h in listed(capped)).values(), default=0) <= cap
    assert len(set(listed(capped))) == len(capped)
    shuffled = list(log)
    random.shuffle(shuffled)
    assert listed(pairs_of(choices(shuffled), cap=cap)) == listed(capped)


def test_a_capped_step_uses_as_many_items_of_both_sides_as_it_can():
    log = [(1, item, 0) for item in range(1, 41)] + [(1, item, 1) for item in range(41, 61)]
    pairs = consecutive_pairs(choices(log), ordered=False, window_us=HOUR, cap=20)
    assert len(set(pairs.query)) == len(set(pairs.positive)) == 20
    other = consecutive_pairs(choices(log), ordered=False, window_us=HOUR, cap=20, seed=1)
    assert set(pairs.query) != set(other.query)


def test_big_steps_do_not_dominate():
    log = [(1, item, hour) for hour in (0, 1) for item in range(1, 100)] + [(2, 1, 0), (2, 2, 1)]
    pairs = consecutive_pairs(choices(log), ordered=False, window_us=HOUR, cap=50)
    assert pairs.weight[pairs.user == 1].sum() == pytest.approx(pairs.weight[pairs.user == 2].sum()) == pytest.approx(1)


@settings(max_examples=100, deadline=None)
@given(rows, st.integers(1, 9))
def test_pairs_of_boards_are_each_two_of_its_items_once_the_later_one_positive(log, window):
    pairs = board_pairs(choices(log), window_us=window * HOUR, cap=1000)
    first: dict[int, dict[int, int]] = defaultdict(dict)
    for board, item, hour in sorted(log, key=lambda r: r[2]):
        first[board].setdefault(item, hour)
    expected = sorted(
        (board, *sorted((a, b)), max(hours[a], hours[b]))
        for board, hours in first.items()
        for a, b in product(hours, hours)
        if a < b and abs(hours[a] - hours[b]) <= window
    )
    assert sorted((u, *sorted((q, i)), h) for u, q, i, h in listed(pairs)) == expected
    assert all(first[u][q] <= first[u][i] for u, q, i, _ in listed(pairs))


@pytest.mark.parametrize("cap", [1, 3])
def test_no_choices_no_pairs(cap):
    assert len(consecutive_pairs(choices([]), ordered=False, window_us=HOUR, cap=cap)) == 0
    assert len(consecutive_pairs(choices([]), ordered=True, window_us=HOUR, cap=cap)) == 0
    assert len(board_pairs(choices([]), window_us=HOUR, cap=cap)) == 0
