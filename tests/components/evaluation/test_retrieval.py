"""Places of held-out items among the catalogue, against all orders of tied items."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.evaluation.retrieval import places


def by_all_orders(scores: np.ndarray, query: int, positive: int, counted: set[int], k: int, scale: int):
    """Mean hit and scaled reciprocal rank over every order of the candidates that respects the scores."""
    candidates = sorted((counted | {positive}) - {0, query})
    ranks = []
    for order in permutations(candidates):
        if all(scores[a] >= scores[b] for a, b in pairwise(order)):
            ranks.append(order.index(positive) + 1)
    return np.mean([r <= k for r in ranks]), np.mean([1 / np.ceil(r / scale) for r in ranks])


@settings(max_examples=80, deadline=None)
@given(data=st.data(), scores=st.lists(st.integers(0, 2), min_size=3, max_size=7), k=st.integers(1, 4))
def test_measures_are_expectations_over_the_orders_of_tied_items(data, scores, k):
    n = len(scores)
    query = data.draw(st.integers(1, n - 1))
    positive = data.draw(st.integers(1, n - 1).filter(lambda x: x != query))
    counted = data.draw(st.sets(st.integers(0, n - 1)))
    mask = np.isin(np.arange(n), list(counted))
    values = np.array([scores], np.float32)
    found = places(values, np.array([query]), np.array([0]), np.array([positive]), mask)
    hit, reciprocal = by_all_orders(values[0], query, positive, counted, k, 2)
    assert found.hit(k)[0] == pytest.approx(hit)
    assert found.reciprocal(2)[0] == pytest.approx(reciprocal)
