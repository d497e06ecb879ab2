"""Rivals and their measures on graphs small enough to count by hand."""

import numpy as np
import polars as pl
import pytest

from components.evaluation.bootstrap import Bootstrap
from components.evaluation.related import (
    HeldOut,
    by_followers,
    by_popularity,
    by_shared_boards,
    by_vectors,
    by_visits,
    spread,
    times_chosen,
)
from components.generator.boards import planted_boards
from components.graph.bipartite import BipartiteGraph
from components.graph.walks import WalkConfig

BOARDS = [[1, 2, 3], [1, 2], [2, 3, 4], [2]]


@pytest.fixture
def graph() -> BipartiteGraph:
    items = np.concatenate(BOARDS).astype(np.int32)
    boards = np.repeat(np.arange(4), [len(b) for b in BOARDS]).astype(np.int32)
    return BipartiteGraph.from_edges(items, boards, n_items=6, n_boards=4)


def test_shared_boards_are_counted_and_damped_by_the_items_own(graph):
    raw = by_shared_boards(graph)(np.array([1, 3]))
    np.testing.assert_allclose(raw, [[0, 2, 2, 1, 0, 0], [0, 1, 2, 2, 1, 0]], atol=1e-5)
    full = by_shared_boards(graph, 1.0)(np.array([1]))
    np.testing.assert_allclose(full, [[0, 1, 0.5, 0.5, 0, 0]], atol=1e-5)


def test_items_that_share_nothing_with_the_query_are_ordered_by_popularity(graph):
    score = by_shared_boards(graph)(np.array([4]))[0]
    assert score[1] > score[5] == 0
    assert np.argsort(-by_popularity(graph.degree)(np.array([4]))[0])[0] == 2


def test_walks_visit_what_is_saved_together_most(graph):
    score = by_visits(graph, WalkConfig(top=4, walks=2000, length=8, band_size=0))(np.array([1, 5]))
    assert np.argsort(-score[0])[:2].tolist() == [2, 3]
    assert score[1].max() < 1e-5  # without boards only popularity is left


def test_what_followed_the_query_comes_first_then_what_was_chosen_most():
    pairs = pl.DataFrame(
        {
            "query": [1, 1, 2, 3, 3],
            "positive": [4, 4, 5, 5, 2],
            "weight": pl.Series([0.25, 0.5, 1, 1, 1], dtype=pl.Float32),
        }
    )
    assert times_chosen(pairs, 6).tolist() == [0, 0, 1, 0, 0.75, 2]
    score = by_followers(pairs, 6)(np.array([1, 5]))
    np.testing.assert_allclose(score, [[0, 0, 0, 0, 0.75, 0], np.zeros(6)], atol=1e-5)
    assert np.argsort(-score[0])[:3].tolist() == [4, 5, 2]
    assert np.argsort(-score[1])[:3].tolist() == [5, 2, 4]


def held_out(query, positive, user, weight=None) -> HeldOut:
    weight = np.ones(len(query)) if weight is None else weight
    return HeldOut.of(pl.DataFrame({"query": query, "positive": positive, "user_hash": user, "weight": weight}))


def test_places_do_not_depend_on_how_many_queries_are_scored_at_a_time():
    planted = planted_boards(np.random.default_rng(1), topics=10, per_topic=10, boards=100, pairs=300)
    pairs = held_out(planted.query, planted.positive, planted.query)
    scorer = by_vectors(planted.vectors)
    whole, pieces = pairs.places(scorer, queries=10**6), pairs.places(scorer, queries=7)
    assert np.array_equal(whole.above, pieces.above)
    sample = np.random.default_rng(0).random(len(planted.topic)) < 0.3
    assert (pairs.places(scorer, sample).above <= whole.above).all()


def test_a_query_stands_for_a_user_who_is_not_known():
    known, none, some = (
        held_out([1, 1, 3, 3], [2, 5, 4, 5], owners) for owners in ([7, 8, 7, 8], [0] * 4, [0, 7, 7, 0])
    )
    assert [(p.users, p.unit) for p in (known, none, some)] == [(2, "users"), (2, "queries"), (3, "users or queries")]
    assert none.user.tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    assert some.some(np.array([True, False, False, True])).unit == "users or queries"


def test_measures_weigh_pairs_and_are_resampled_by_user(graph):
    pairs = held_out([1, 1, 3], [2, 5, 4], [70, 70, 90], [1.0, 3.0, 2.0])
    measures = pairs.measures(pairs.places(by_shared_boards(graph)), ks=(1, 2))
    assert pairs.users == 2
    assert measures["hit@1"].value == pytest.approx(1 / 6)
    assert measures["hit@2"].denominator.tolist() == [4, 2]
    only = pairs.measures(pairs.places(by_shared_boards(graph)), (1,), np.array([True, False, False]))
    assert only["hit@1"].value == 1
    found = Bootstrap(2, 200).intervals([measures["hit@1"]])[0]
    assert found.low == 0
    assert found.high == pytest.approx(0.25)


def test_spread_tells_clustered_vectors_from_scattered_ones():
    rng = np.random.default_rng(0)
    scattered = np.concatenate([np.zeros((1, 64)), rng.normal(size=(500, 64))])
    clustered = np.concatenate([np.zeros((1, 64)), 1 + 0.3 * rng.normal(size=(500, 64))])
    wide, narrow = spread(scattered), spread(clustered)
    assert abs(wide.mean) < 0.01
    assert narrow.mean > 0.8
    assert abs(wide.kurtosis) < 0.2
    assert wide.share.sum() == pytest.approx(1)
