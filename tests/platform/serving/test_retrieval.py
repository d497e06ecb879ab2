"""Retrievers give distinct known rows, best first, and the fast search agrees with its slow twin."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.history.build import History
from components.history.items import ItemTable
from components.history.schema import FeatureSchema
from pinloom.serving import retrieval
from pinloom.serving.retrieval import ContentNeighbours, Popularity, UserState, gather, nearest

SCHEMA = FeatureSchema(
    service="ranking_v1",
    heads=("buy",),
    actions=("buy", "hide"),
    item_numeric=("log_positives_28d", "log_positives"),
    candidate_numeric=("log_positives_28d", "log_positives"),
    user_numeric=(),
    categorical=(),
    crosses=(),
    positive=(1,),
    vector_dim=2,
)


def table(vectors: list[list[float]], popularity: list[tuple[float, float]]) -> ItemTable:
    n = len(vectors)
    return ItemTable(
        keys=np.arange(n, dtype=np.int64),
        vectors=np.array(vectors, np.float16),
        categorical=np.zeros((n, 0), np.int32),
        hash=np.zeros(n, np.int32),
        numeric=np.array(popularity, np.float32),
        labels=pl.DataFrame({"row": np.arange(n), "item_id": [str(i) for i in range(n)]}),
    )


def user(items: list[int], actions: list[int] | None = None) -> UserState:
    n = len(items)
    history = History(
        item=np.array(items, np.int32),
        action=np.array(actions or [1] * n, np.int16),
        timestamp=np.arange(n, 0, -1, dtype=np.int64),
        surface=np.zeros(n, np.int32),
        event=np.arange(n, dtype=np.int64),
    )
    return UserState("u", history, n + 1)


ITEMS = table(
    [[0, 0], [1, 0], [0.96, 0.28], [0, 1], [0, 0]],
    [(9, 9), (1, 5), (3, 3), (1, 7), (0, 0)],
)


def test_popularity_is_by_recent_then_by_all_positives_and_leaves_out_what_nobody_took():
    assert Popularity(ITEMS, SCHEMA).candidates(user([]), 10).tolist() == [2, 3, 1]


def test_neighbours_follow_positives_only():
    neighbours = ContentNeighbours(ITEMS, SCHEMA)
    assert neighbours.candidates(user([1]), 2).tolist() == [1, 2]
    assert neighbours.candidates(user([3, 1], actions=[2, 1]), 2).tolist() == [1, 2]


def test_neighbours_of_nothing_are_none():
    assert len(ContentNeighbours(ITEMS, SCHEMA).candidates(user([]), 5)) == 0
    assert len(ContentNeighbours(ITEMS, SCHEMA).candidates(user([0]), 5)) == 0


def test_only_the_newest_positives_are_asked_for():
    assert ContentNeighbours(ITEMS, SCHEMA, recent=1).candidates(user([3, 1]), 1).tolist() == [3]


def test_candidates_are_taken_in_turn_and_say_who_proposed_them():
    retrievers = [Popularity(ITEMS, SCHEMA), ContentNeighbours(ITEMS, SCHEMA)]
    rows, sources = gather(retrievers, user([1]), 3)
    assert rows.tolist() == [2, 1, 3]
    assert sources == ["popularity", "content_neighbours", "popularity"]


def test_seen_items_are_left_out_when_asked():
    rows, _ = gather([Popularity(ITEMS, SCHEMA)], user([2]), 2, exclude_seen=True)
    assert rows.tolist() == [3, 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_search_by_chunks_equals_sorting_everything(n, queries, k, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-3, 4, (n, 4)).astype(np.float16)
    asked = rng.integers(-3, 4, (queries, 4)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CHUNK", 7)
        found = nearest(vectors, asked, k)
    scores = (vectors.astype(np.float32) @ asked.T).max(axis=1)
    twin = [r for r in np.argsort(-scores, kind="stable") if r != 0 and vectors[r].any()][:k]
    assert found.tolist() == twin
