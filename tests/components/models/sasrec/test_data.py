"""Histories as steps: tied actions are a set, and nothing predicts its own step."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contract import Contract
from components.evaluation.next_items import Questions
from components.models.sasrec.data import before, collate, steps_of


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


EVENT = st.tuples(st.integers(0, 5), st.integers(1, 2), st.integers(0, 6))
"""(item, action, time); item 0 is unknown, action 2 no positive one."""


def asked_of(users: list[list[tuple[int, int, int]]], moments: list[int]) -> Questions:
    """Each user at one moment, about everything before it."""
    logs = [sorted(user, key=lambda e: e[2]) for user in users]
    begin = np.cumsum([0, *(len(log) for log in logs)])[:-1]
    end = begin + [sum(e[2] < moment for e in log) for log, moment in zip(logs, moments, strict=True)]
    flat = np.array([e for log in logs for e in log], np.int64).reshape(-1, 3).T
    events = dict(zip(("item", "action", "timestamp"), flat, strict=True))
    none, users_Q = np.zeros(0, np.int64), np.arange(len(users))
    return Questions(users_Q, np.array(moments, np.int64), begin, end, events, none, none)


@given(
    st.lists(st.tuples(st.lists(EVENT, max_size=12), st.integers(0, 7)), min_size=1, max_size=5),
    st.integers(1, 4),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_question_is_asked_with_the_newest_steps_before_it(users, length, ordered):
    questions = asked_of([u for u, _ in users], [at for _, at in users])
    asked = np.arange(len(users))[::-1].copy()
    rows = questions.events["item"] + 100
    batch, place, last = before(questions, asked, rows, positive=[1], ordered=ordered, length=length)
    found = [sorted(step.tolist()) for step in torch.tensor_split(batch.item_M, batch.offset_P[1:])]
    seen = dict(zip(place.tolist(), last.tolist(), strict=True))
    for number, question in enumerate(asked):
        own, at = users[question]
        bought = sorted((e for e in own if e[1] == 1 and e[0] > 0 and e[2] < at), key=lambda e: e[2])
        times = sorted({e[2] for e in bought})
        steps = (
            [[100 + e[0]] for e in bought]
            if ordered
            else [sorted(100 + e[0] for e in bought if e[2] == t) for t in times]
        )
        steps = steps[-length:]
        assert (number in seen) == bool(steps)
        if steps:
            mine = slice(seen[number] - len(steps) + 1, seen[number] + 1)
            assert found[mine] == steps
            # The step that is asked for would stand at position 0.
            assert batch.age_P[mine].tolist() == list(range(len(steps), 0, -1))
