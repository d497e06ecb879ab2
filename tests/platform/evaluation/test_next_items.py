"""Parts of what is chosen next, against plain loops."""

import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.evaluation.next_items import Questions
from pinloom.evaluation.next_items import _chosen_before


def asked(items: list[int], ranges: list[tuple[int, int]], chosen: list[list[int]]) -> Questions:
    """Questions with these ranges of `items` as histories, and what was then chosen."""
    begin, end = np.array(ranges, np.int64).reshape(-1, 2).T
    pairs = [(q, item) for q, some in enumerate(chosen) for item in some]
    question, item = np.array(pairs, np.int64).reshape(-1, 2).T
    events = {"item": np.array(items, np.int64)}
    return Questions(np.arange(len(begin)), np.arange(len(begin)), begin, end, events, question, item)


RANGES = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda r: (min(r), max(r)))
QUESTIONS = st.lists(st.tuples(RANGES, st.lists(st.integers(0, 6), max_size=4, unique=True)), max_size=8)


@given(st.lists(st.integers(0, 6), min_size=12, max_size=12), QUESTIONS)
@settings(max_examples=60, deadline=None)
def test_an_item_was_had_before_when_it_is_in_the_history(items, questions):
    ranges, chosen = [r for r, _ in questions], [c for _, c in questions]
    expected = [item in items[a:b] for (a, b), some in zip(ranges, chosen, strict=True) for item in some]
    assert _chosen_before(asked(items, ranges, chosen)).tolist() == expected


def test_many_questions_about_one_long_history_take_the_memory_of_one():
    length, moments = 20_000, 40
    questions = asked(list(range(length)), [(0, length - q) for q in range(moments)], [[0, length]] * moments)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = _chosen_before(questions)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert found.tolist() == [True, False] * moments
    assert peak < 20 * questions.events["item"].nbytes
