"""Histories as steps: tied actions are a set, and nothing predicts its own step."""

import numpy as np
import polars as pl
import pytest

from components.contract import Contract
from components.models.sasrec.data import collate, steps_of


def contract(ties: str) -> Contract:
    return Contract.model_validate(
        {
            "name": "c",
            "actions": [{"name": "buy", "role": "positive"}, {"name": "hide", "role": "negative"}],
            "ties": ties,
            "splits": {"burn_in": "2020-01-01", "validation": "2020-02-01", "test": "2020-03-01", "end": "2020-04-01"},
        }
    )


def histories(*users):
    """Each user a list of (item, action, time), oldest first; stored newest first."""
    columns = zip(*([list(c) for c in zip(*u[::-1], strict=True)] if u else [[], [], []] for u in users), strict=True)
    types = (pl.Int32, pl.Int16, pl.Int64)
    names = ("item", "action", "timestamp")
    series = [pl.Series(n, list(c), pl.List(t)) for n, c, t in zip(names, columns, types, strict=True)]
    return pl.DataFrame(series).to_arrow()


ROWS = histories(
    [(1, 1, 10), (2, 1, 10), (3, 1, 20), (9, 2, 25), (4, 1, 30), (5, 1, 30)],
    [],
    [(6, 1, 15), (0, 1, 16), (7, 1, 40)],
)


def pairs(batch):
    """{(items of the step that predicts, target)}."""
    ends = [*batch.offset_P.tolist()[1:], len(batch.item_M)]
    steps = [frozenset(batch.item_M[a:b].tolist()) for a, b in zip(batch.offset_P.tolist(), ends, strict=True)]
    return {(steps[s], t) for s, t in zip(batch.source_K.tolist(), batch.target_K.tolist(), strict=True)}


def test_tied_actions_are_one_step_and_predict_only_the_next_one():
    batch = collate(ROWS, contract("unordered"), stop=100, length=10)
    assert pairs(batch) == {
        (frozenset({1, 2}), 3),
        (frozenset({3}), 4),
        (frozenset({3}), 5),
        (frozenset({6}), 7),
    }


def test_ordered_ties_are_steps_of_their_own():
    batch = collate(ROWS, contract("ordered"), stop=100, length=10)
    assert (frozenset({1}), 2) in pairs(batch)
    assert len(batch.offset_P) == 7


def test_stored_order_of_ties_changes_nothing():
    swapped = histories(
        [(2, 1, 10), (1, 1, 10), (3, 1, 20), (9, 2, 25), (5, 1, 30), (4, 1, 30)], [], [(6, 1, 15), (7, 1, 40)]
    )
    both = [collate(rows, contract("unordered"), stop=100, length=10) for rows in (ROWS, swapped)]
    assert pairs(both[0]) == pairs(both[1])


def test_nothing_at_or_after_the_stop_is_read():
    assert pairs(collate(ROWS, contract("unordered"), stop=30, length=10)) == {(frozenset({1, 2}), 3)}


def test_only_targets_since_a_moment_are_asked_for_but_all_steps_are_read():
    batch = collate(ROWS, contract("unordered"), stop=100, length=10, since=35)
    assert pairs(batch) == {(frozenset({6}), 7)}
    assert len(batch.offset_P) == 5


def test_negative_and_unknown_items_are_left_out():
    assert sorted(steps_of(ROWS, contract("unordered"), 100).item.tolist()) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("seed", [None, 0])
def test_long_histories_give_a_window(seed):
    rng = None if seed is None else np.random.default_rng(seed)
    rows = histories([(i, 1, i) for i in range(1, 31)])
    batch = collate(rows, contract("ordered"), stop=100, length=5, rng=rng)
    items = batch.item_M.tolist()
    assert items == list(range(items[0], items[0] + 6))
    assert (items[-1] == 30) or seed is not None
    assert batch.age_P.tolist() == [5, 4, 3, 2, 1, 0]
    assert batch.slot_P.tolist() == [0, 1, 2, 3, 4, 5]


def test_users_without_anything_to_predict_make_an_empty_batch():
    batch = collate(histories([], [(1, 1, 5)]), contract("ordered"), stop=100, length=5)
    assert len(batch.source_K) == 0
