"""Batches of pairs: which negatives count, and from where they come."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from components.generator.boards import planted_boards
from components.models.pinsage.config import PinSageConfig
from components.models.pinsage.data import KnownPairs, PairCollator
from tests.components.models.pinsage.planted import catalogue

rows = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(query=rows, data=st.data())
def test_a_negative_is_allowed_unless_it_is_the_query_a_known_positive_or_padding(query, data):
    n = len(query)
    positive = data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
    shared, hard = data.draw(rows), data.draw(st.lists(st.integers(0, 9), min_size=2 * n, max_size=2 * n))
    known = KnownPairs.of(np.array(query, np.int32), np.array(positive, np.int32), 10)
    pairs = set(zip(query, positive, strict=True))
    own = np.array(hard, np.int32).reshape(n, 2)
    got = known.allowed(np.array(query, np.int32), np.array(shared, np.int32), own)
    wanted = [[x not in (0, q) and (q, x) not in pairs for x in (*shared, *own[b])] for b, q in enumerate(query)]
    assert got.tolist() == wanted


def collator(**changed) -> tuple[PairCollator, pa.Table]:
    planted = planted_boards(np.random.default_rng(0), topics=8, per_topic=20, boards=100, pairs=500)
    config = PinSageConfig(neighbours=20, negatives=50, **changed)
    known = KnownPairs.of(planted.query, planted.positive, len(planted.topic))
    table = pa.table({"query": planted.query, "positive": planted.positive, "weight": np.ones(len(planted.query))})
    return PairCollator(config, catalogue(planted), known), table.slice(0, 64)


def test_nodes_of_a_batch_are_the_items_that_the_pairs_name():
    make, table = collator()
    make.hard = 3
    batch = make(table, np.random.default_rng(1))
    row = batch.graph.row_V
    assert row[batch.query_B].tolist() == table["query"].to_pylist()
    assert row[batch.positive_B].tolist() == table["positive"].to_pylist()
    assert batch.hard_BH.shape == (64, 3)
    assert batch.allowed_BN.shape == (64, 53)
    band = make.catalogue.band
    assert all(set(row[h].tolist()) <= {0, *band[q]} for q, h in zip(row[batch.query_B], batch.hard_BH, strict=True))


def test_a_batch_is_a_function_of_its_rows_and_its_random_state():
    make, table = collator()
    make.hard = 2
    one, other = (make(table, np.random.default_rng(5)) for _ in range(2))
    assert one.negative_S.equal(other.negative_S)
    assert one.hard_BH.equal(other.hard_BH)
    assert not make(table, np.random.default_rng(6)).negative_S.equal(one.negative_S)


def test_negatives_are_uniform_or_follow_the_number_of_boards():
    for power in (0.0, 1.0):
        make, _ = collator(negative_power=power)
        rng = np.random.default_rng(0)
        drawn = np.bincount(np.concatenate([make._shared(rng) for _ in range(2000)]), minlength=len(make.catalogue))
        weight = (1 + make.catalogue.degree.astype(float)) ** power
        weight[0] = 0
        expected = weight / weight.sum() * drawn.sum()
        assert drawn[0] == 0
        chi2 = ((drawn - expected)[1:] ** 2 / np.maximum(expected[1:], 1e-9))[expected[1:] > 0].sum()
        assert chi2 < 1.4 * len(drawn)


def test_an_item_on_no_board_is_a_negative_too():
    """Else nothing would hold it down, and it would stand above all others."""
    planted = planted_boards(np.random.default_rng(0), topics=8, per_topic=20, boards=100, pairs=500, isolated=30)
    known = KnownPairs.of(planted.query, planted.positive, len(planted.topic))
    make = PairCollator(PinSageConfig(negatives=500, negative_power=1.0), catalogue(planted), known)
    rng = np.random.default_rng(0)
    drawn = np.concatenate([make._shared(rng) for _ in range(20)])
    alone = np.arange(len(planted.topic) - 30, len(planted.topic))
    assert not make.catalogue.degree[alone].any()
    assert np.isin(alone, drawn).all()


def test_pairs_weigh_less_the_more_items_their_positive_follows():
    make, table = collator(positive_power=0.5)
    followed = np.array([make.known.positives.tolist().count(p) for p in table["positive"].to_pylist()])
    weight = make(table, np.random.default_rng(0)).weight_B
    np.testing.assert_allclose(weight, followed**-0.5, rtol=1e-6)
    assert weight.min() < weight.max()


def test_by_lift_neighbours_are_those_met_more_often_than_their_boards_say():
    planted = planted_boards(np.random.default_rng(0), topics=8, per_topic=20, boards=100, pairs=500)
    whole = catalogue(planted, 40)
    near = whole.nearest(10, lift=1.0)
    for row in range(1, len(whole)):
        weight = {i: w / whole.degree[i] for i, w in zip(whole.neighbours[row], whole.weights[row], strict=True) if w}
        heaviest = sorted(weight.values(), reverse=True)[:10]
        total = sum(heaviest)
        kept = near.neighbours[row][near.weights[row] > 0]
        np.testing.assert_allclose([weight[i] / total for i in kept], near.weights[row][: len(kept)], rtol=1e-5)
        np.testing.assert_allclose(near.weights[row][: len(kept)], np.array(heaviest) / total, rtol=1e-5)
