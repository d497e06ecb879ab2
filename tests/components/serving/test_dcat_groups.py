"""Ψ: equal sequences are found, every candidate finds its own again."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.serving.dcat import offsets, unique


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 1)), max_size=12),
    data=st.data(),
)
def test_each_candidate_finds_its_own_sequence_and_no_sequence_comes_twice(rows, data):
    ids = torch.tensor([row[:2] for row in rows], dtype=torch.int64).view(len(rows), 2)
    length = torch.tensor([row[2] for row in rows], dtype=torch.int64)
    found = unique(ids, length)
    assert len(found.first_U) == len(set(rows))
    assert [rows[n] for n in found.first_U.tolist()] == list(dict.fromkeys(rows))
    names = st.lists(st.integers(0, len(rows) - 1), max_size=20) if rows else st.just([])
    row_of = torch.tensor(data.draw(names), dtype=torch.int64)
    order, unique_of = found.group(row_of)
    assert sorted(order.tolist()) == list(range(len(row_of)))
    for old, new in zip(order.tolist(), unique_of.tolist(), strict=True):
        assert rows[row_of[old]] == rows[found.first_U[new]]
    bounds = offsets(unique_of, len(found.first_U))
    for u, (begin, end) in enumerate(pairwise(bounds)):
        assert (unique_of[begin:end] == u).all()
    assert bounds[-1] == len(row_of)


@pytest.mark.parametrize("rows", [[1, 0], [0, 3], [-1, 0]])
def test_candidates_that_are_not_grouped_are_refused(rows):
    with pytest.raises(ValueError, match="grouped"):
        offsets(torch.tensor(rows), 3)
