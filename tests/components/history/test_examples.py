"""The vectorised rows against one request at a time, and against time itself."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contract import Ties
from components.history.examples import in_sample
from tests.components.history import logs

FEATURES = [
    "history_item",
    "history_action",
    "history_timestamp",
    "history_surface",
    "candidate_item",
    "candidate_hash",
    "candidate_surface",
    "candidate_numeric",
    "user_hash",
    "user_numeric",
]


@pytest.mark.parametrize("ties", list(Ties))
@settings(max_examples=60, deadline=None)
@given(actions=logs.logs(), limit=st.sampled_from([2, 5, 1000]))
def test_every_request_has_the_features_that_its_history_alone_gives(ties, actions, limit):
    of = logs.contract(ties, max_history=limit)
    for row in logs.build(actions, of).examples.iter_rows(named=True):
        slow = logs.slow_example(actions, of, row).columns()
        warm = np.array(row["candidate_numeric"]).reshape(-1, 8)[:, 2] > 0
        slow["candidate_hash"] = np.where(warm, slow["candidate_hash"], 0)
        for name in FEATURES:
            np.testing.assert_allclose(row[name], slow[name], atol=1e-6, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(actions=logs.logs(), data=st.data())
def test_nothing_at_or_after_a_request_changes_its_features(actions, data):
    of = logs.contract()
    examples = logs.build(actions, of).examples
    if examples.is_empty():
        return
    row = data.draw(st.sampled_from(examples.to_dicts()))
    seen = pl.col("action") == "seen"
    later = (pl.col("timestamp") >= row["timestamp"]) & ~seen
    other = data.draw(logs.logs(max_size=10)).with_columns(
        pl.col("timestamp") + (row["timestamp"] - datetime.fromtimestamp(0, row["timestamp"].tzinfo)),
        event_id=pl.concat_str(pl.lit("new"), "event_id"),
    )
    mutated = pl.concat([actions.filter(~later), other.filter(~seen)])
    again = logs.build(mutated, of).examples.filter(
        pl.col("request_id") == row["request_id"], pl.col("user_id") == row["user_id"]
    )
    assert again.height == 1
    for name in FEATURES:
        np.testing.assert_array_equal(again[name].to_list()[0], row[name], err_msg=name)


@settings(max_examples=40, deadline=None)
@given(actions=logs.logs(), seed=st.integers(0, 100))
def test_the_stored_order_of_tied_rows_is_no_information(actions, seed):
    of = logs.contract(Ties.UNORDERED)
    shuffled = actions.sample(fraction=1, shuffle=True, seed=seed)
    assert logs.build(actions, of).examples.equals(logs.build(shuffled, of).examples)


def test_ordered_ties_keep_the_stored_order():
    rows = [
        {"event_id": str(i), "user_id": "ann", "item_id": item, "action": "buy", "timestamp": 0}
        for i, item in enumerate(["corn", "apple", "egg"])
    ]
    late = {"event_id": "s", "user_id": "ann", "item_id": "egg", "action": "seen", "timestamp": 5, "request_id": "r"}
    example = logs.build(logs.frame([*rows, late]), logs.contract(Ties.ORDERED)).examples
    assert example["history_item"].to_list() == [[5, 1, 3]]


def test_candidates_and_requests_come_in_an_order_that_does_not_follow_ids_or_labels():
    rows = []
    for r in range(50):
        for i, item in enumerate(logs.ITEM_IDS[1:]):
            shown = {"user_id": "ann", "item_id": item, "timestamp": r * logs.HOUR, "request_id": f"r{r:02d}"}
            rows.append({**shown, "event_id": f"{r}-{i}", "action": "seen"})
            if i == 0:
                rows.append({**shown, "event_id": f"{r}-buy", "action": "buy"})
    examples = logs.build(logs.frame(rows), logs.contract()).examples
    places = [labels.index(1) for labels in examples["labels"].to_list()]
    assert {places.count(p) > 2 for p in range(5)} == {True}
    assert examples["request_id"].to_list() != sorted(examples["request_id"].to_list())


def test_a_request_of_a_user_without_history_has_defined_features():
    seen = {"event_id": "1", "user_id": "new", "item_id": "egg", "action": "seen", "timestamp": 1, "request_id": "r"}
    row = logs.build(logs.frame([seen]), logs.contract()).examples.row(0, named=True)
    assert row["history_item"] == []
    assert row["user_hash"] == 0
    assert row["candidate_hash"] == [0]
    assert np.isfinite(row["candidate_numeric"]).all()
    assert np.isfinite(row["user_numeric"]).all()


def test_a_sample_is_a_share_and_a_smaller_one_is_part_of_a_larger_one():
    ids = pl.Series([f"request-{i}" for i in range(4000)])
    third, half = in_sample(ids, 1 / 3), in_sample(ids, 1 / 2)
    assert third.mean() == pytest.approx(1 / 3, abs=0.03)
    assert not (third & ~half).any()
    assert in_sample(ids, 1.0).all()


def test_statistics_change_at_midnight_only():
    buy = {"event_id": "b", "user_id": "bob", "item_id": "corn", "action": "buy", "timestamp": 3 * logs.HOUR}
    seen = [
        {"event_id": f"s{h}", "user_id": "ann", "item_id": "corn", "action": "seen", "timestamp": h * logs.HOUR}
        for h in (4, 23, 24)
    ]
    rows = [buy, *({**s, "request_id": s["event_id"]} for s in seen)]
    examples = logs.build(logs.frame(rows), logs.contract()).examples.sort("timestamp")
    counts = [np.expm1(n[2]) for n in examples["candidate_numeric"].to_list()]
    np.testing.assert_allclose(counts, [0, 0, 1], atol=1e-6)
    assert examples["timestamp"].to_list()[2] - examples["timestamp"].to_list()[0] == timedelta(hours=20)
