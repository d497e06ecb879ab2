"""Walks: the compiled ones equal plain numpy to the bit, and both do what the papers say."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UserError
from components.graph.bipartite import BipartiteGraph
from components.graph.walks import WalkConfig, Walked, Walker
from components.graph.walks_plain import walk_plain
from components.graph.walks_torch import TorchWalker
from tests.components.graph.examples import graphs, pagerank

configs = st.builds(
    WalkConfig,
    top=st.integers(1, 12),
    walks=st.integers(1, 40),
    length=st.integers(1, 6),
    restart=st.sampled_from([0.0, 0.3, 0.9]),
    early_stop=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 2**40),
    band=st.sampled_from([(0.0, 1.0), (0.25, 0.75)]),
    band_size=st.integers(1, 8),
)


def same(one: Walked, other: Walked) -> None:
    np.testing.assert_array_equal(one.neighbourhoods.rows, other.neighbourhoods.rows)
    np.testing.assert_array_equal(one.neighbourhoods.weights, other.neighbourhoods.weights)
    np.testing.assert_array_equal(one.band, other.band)
    np.testing.assert_array_equal(one.reached, other.reached)
    np.testing.assert_array_equal(one.hops, other.hops)


@pytest.fixture(scope="module")
def graph() -> BipartiteGraph:
    rng = np.random.default_rng(1)
    items, boards = rng.integers(1, 300, 3000).astype(np.int32), rng.integers(0, 200, 3000).astype(np.int32)
    return BipartiteGraph.from_edges(items, boards, rng.random(3000, np.float32) + 0.1, n_items=300, n_boards=200)


@settings(max_examples=60, deadline=None)
@given(graphs(), configs)
def test_compiled_walks_equal_plain_ones(graph, config):
    same(Walker(graph, config).walk(), walk_plain(graph, config))


@settings(max_examples=60, deadline=None)
@given(graphs(), configs)
def test_walks_on_a_torch_device_equal_plain_ones(graph, config):
    same(TorchWalker(graph, config).walk(), walk_plain(graph, config))


def test_the_result_depends_on_the_seed_and_not_on_threads_or_shards(graph):
    config = WalkConfig(walks=32, length=6)
    whole = Walker(graph, config, threads=1).walk()
    same(Walker(graph, config, threads=10_000).walk(), whole)
    same(whole, Walker(graph, config, threads=2).walk())
    some = np.array([250, 3, 77], np.int32)
    np.testing.assert_array_equal(Walker(graph, config).walk(some).neighbourhoods.rows, whole.neighbourhoods.rows[some])
    other = Walker(graph, replace(config, seed=1)).walk()
    assert (other.neighbourhoods.rows != whole.neighbourhoods.rows).any()


@settings(max_examples=40, deadline=None)
@given(graphs(), configs)
def test_neighbourhoods_are_normalised_ordered_padded_and_without_oneself(graph, config):
    walked = Walker(graph, config).walk()
    near = walked.neighbourhoods
    filled = near.rows > 0
    assert (filled.sum(1) == np.minimum(walked.reached, config.top)).all()
    assert (filled == (near.weights > 0)).all()
    assert (np.diff(filled.astype(int), axis=1) <= 0).all()
    np.testing.assert_allclose(near.weights.sum(1)[filled.any(1)], 1, rtol=1e-5)
    assert (near.rows != np.arange(graph.items)[:, None])[filled].all()
    heavier = near.weights[:, :-1] > near.weights[:, 1:]
    tied = (near.weights[:, :-1] == near.weights[:, 1:]) & (near.rows[:, :-1] < near.rows[:, 1:])
    assert (heavier | tied)[filled[:, 1:]].all()
    assert all(len(set(row[row > 0])) == (row > 0).sum() for row in near.rows)


def test_an_item_without_boards_has_no_neighbours_and_never_becomes_one(graph):
    walked = Walker(graph, WalkConfig(walks=16, length=4)).walk()
    lonely = np.flatnonzero(graph.degree == 0)
    assert 0 in lonely
    assert not walked.neighbourhoods.rows[lonely].any()
    assert not np.isin(walked.neighbourhoods.rows[graph.degree > 0], lonely[lonely > 0]).any()


@pytest.mark.parametrize("restart", [0.2, 0.7])
def test_visit_shares_tend_to_personalised_pagerank_by_edge_weights(graph, restart):
    config = WalkConfig(top=299, walks=200_000, length=8, restart=restart)
    walked = Walker(graph, config).walk(np.array([5], np.int32)).neighbourhoods
    shares = np.zeros(graph.items)
    shares[walked.rows[0]] = walked.weights[0]
    expected = pagerank(graph, 5, restart, config.length)
    assert np.abs(shares - expected).sum() < 0.02
    uniform = replace(
        graph, item_weights=np.ones_like(graph.item_weights), board_weights=np.ones_like(graph.board_weights)
    )
    assert np.abs(shares - pagerank(uniform, 5, restart, config.length)).sum() > 0.1


def test_ties_do_not_favour_items_of_low_rows():
    # One board: all 400 others are alike, and each walk of one hop reaches one of them.
    n = 401
    graph = BipartiteGraph.from_edges(
        np.arange(1, n + 1, dtype=np.int32), np.zeros(n, np.int32), n_items=n + 1, n_boards=1
    )
    near = Walker(graph, WalkConfig(top=10, walks=100, length=1)).walk().neighbourhoods.rows[1:]
    assert abs(near.mean() - n / 2) < 0.03 * n


def test_early_stop_saves_hops_and_keeps_the_most_visited(graph):
    config = WalkConfig(top=10, walks=2000, length=8)
    full = Walker(graph, config).walk()
    stopped = Walker(graph, replace(config, early_stop=20)).walk()
    linked = graph.degree > 0
    assert stopped.hops[linked].mean() < 0.5 * full.hops[linked].mean()
    kept = [len(set(a) & set(b)) for a, b in zip(full.neighbourhoods.rows, stopped.neighbourhoods.rows, strict=True)]
    assert np.mean(np.array(kept)[linked]) > 6


def test_the_band_lies_between_its_ranks_and_behind_the_neighbours(graph):
    config = WalkConfig(top=10, walks=200, length=8, band=(0.25, 0.5), band_size=5)
    walked = Walker(graph, config).walk()
    everyone = Walker(graph, replace(config, top=299)).walk().neighbourhoods
    for item in np.flatnonzero(walked.reached > 60):
        shares = dict(zip(everyone.rows[item], everyone.weights[item], strict=True))
        band = [shares[b] for b in walked.band[item]]
        ranked = everyone.weights[item][: walked.reached[item]]
        first, last = int(np.ceil(0.25 * len(ranked))), int(np.ceil(0.5 * len(ranked)))
        assert ranked[first] >= max(band)
        assert min(band) >= ranked[last - 1]
        assert not set(walked.band[item]) & set(walked.neighbourhoods.rows[item])


def test_a_band_grows_with_what_is_reached():
    few = WalkConfig(top=5, band=(0.5, 1.0), band_size=8)
    rng = np.random.default_rng(0)
    items, boards = np.arange(1, 9, dtype=np.int32), np.zeros(8, np.int32)
    small = BipartiteGraph.from_edges(items, boards, n_items=9, n_boards=1)
    large = BipartiteGraph.from_edges(
        rng.integers(1, 500, 4000).astype(np.int32), rng.integers(0, 9, 4000).astype(np.int32), n_items=500, n_boards=9
    )
    assert (Walker(small, few).walk().band[1:] > 0).sum(1).max() == 2
    assert (Walker(large, few).walk().band[1:] > 0).all()


@pytest.mark.parametrize(
    "wrong", [{"top": 0}, {"restart": 1.0}, {"band": (0.7, 0.2)}, {"walks": 2**20, "length": 2**12}]
)
def test_a_walk_that_cannot_be_made_is_answered_with_the_remedy(wrong):
    with pytest.raises(UserError):
        WalkConfig(**wrong)
