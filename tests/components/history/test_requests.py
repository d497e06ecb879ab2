"""Which rows are shown together, and which actions label them."""

from collections import defaultdict

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from components.history.log import numbers, with_rows
from components.history.requests import full, shown
from tests.components.history import logs

MINUTE = 60_000_000


def _asked(rows: list[dict[str, object]]):
    named = [{"user_id": "ann", "event_id": str(i), **r} for i, r in enumerate(rows)]
    frame = with_rows(logs.frame(named), pl.Series(logs.ITEM_IDS))
    return shown(frame.with_columns(pl.col("timestamp").dt.epoch("us")), logs.contract())


def _labels(asked) -> dict[tuple[str, str], int]:
    rows = asked.candidates.join(asked.requests, on="request").select("request_id", "item", "labels").iter_rows()
    return {(request, logs.ITEM_IDS[item]): labels for request, item, labels in rows}


def test_labels_are_the_heads_of_all_actions_in_the_request():
    asked = _asked(
        [
            {"item_id": "apple", "action": "seen", "timestamp": 5, "request_id": "r"},
            {"item_id": "bread", "action": "seen", "timestamp": 5, "request_id": "r"},
            {"item_id": "apple", "action": "save", "timestamp": 9, "request_id": "r"},
            {"item_id": "apple", "action": "buy", "timestamp": 4, "request_id": "r"},
            {"item_id": "bread", "action": "buy", "timestamp": 9, "request_id": "another"},
            {"item_id": "corn", "action": "buy", "timestamp": 9, "request_id": "r"},
        ]
    )
    assert _labels(asked) == {("r", "apple"): 0b101, ("r", "bread"): 0}


def test_the_same_request_id_of_two_users_is_two_requests():
    shown_to = {"item_id": "apple", "action": "seen", "request_id": "r"}
    asked = _asked(
        [
            {**shown_to, "user_id": "ann", "timestamp": 1},
            {**shown_to, "user_id": "bob", "timestamp": 2},
            {"user_id": "bob", "item_id": "apple", "action": "buy", "timestamp": 3, "request_id": "r"},
        ]
    )
    candidates = asked.candidates.join(asked.requests, on="request")
    assert sorted(candidates.select("user_id", "labels").iter_rows()) == [("ann", 0), ("bob", 1)]


def test_without_request_ids_sessions_are_requests_and_labels_follow_the_exposure():
    asked = _asked(
        [
            {"item_id": "apple", "action": "buy", "timestamp": 0},
            {"item_id": "apple", "action": "seen", "timestamp": 29 * MINUTE},
            {"item_id": "bread", "action": "seen", "timestamp": 40 * MINUTE},
            {"item_id": "bread", "action": "hide", "timestamp": 40 * MINUTE},
            {"item_id": "bread", "action": "seen", "timestamp": 71 * MINUTE},
            {"item_id": "bread", "action": "buy", "timestamp": 101 * MINUTE},
        ]
    )
    first, second = "ann@0", f"ann@{71 * MINUTE}"
    assert _labels(asked) == {(first, "apple"): 0, (first, "bread"): 0b10, (second, "bread"): 0b1}
    times = dict(asked.requests.select("request_id", "timestamp").iter_rows())
    assert times == {first: 29 * MINUTE, second: 71 * MINUTE}


def test_an_item_shown_twice_counts_once_from_its_first_exposure():
    asked = _asked(
        [
            {"item_id": "apple", "action": "seen", "timestamp": 8, "request_id": "r", "surface": "late"},
            {"item_id": "apple", "action": "seen", "timestamp": 5, "request_id": "r", "surface": "early"},
        ]
    )
    assert asked.candidates["surface"].to_list() == ["early"]


def test_of_two_exposures_at_the_same_moment_one_is_taken_whatever_their_stored_order():
    exposure = {"item_id": "apple", "action": "seen", "timestamp": 5, "request_id": "r"}
    pair = [{**exposure, "event_id": "b", "surface": "second"}, {**exposure, "event_id": "a", "surface": "first"}]
    for rows in (pair, pair[::-1]):
        assert _asked(rows).candidates["surface"].to_list() == ["first"]


def test_exposures_of_items_without_a_row_are_left_out():
    asked = _asked([{"item_id": "gone", "action": "seen", "timestamp": 5, "request_id": "r"}])
    assert asked.candidates.is_empty()


def test_full_requests_are_labelled_by_what_happened_in_them():
    actions = with_rows(
        logs.frame(
            [
                {
                    "event_id": "1",
                    "user_id": "ann",
                    "item_id": "corn",
                    "action": "buy",
                    "timestamp": 7,
                    "request_id": "r",
                },
                {
                    "event_id": "2",
                    "user_id": "ann",
                    "item_id": "egg",
                    "action": "buy",
                    "timestamp": 7,
                    "request_id": "q",
                },
            ]
        ),
        pl.Series(logs.ITEM_IDS),
    ).with_columns(pl.col("timestamp").dt.epoch("us"))
    asked = pl.DataFrame({"user_id": ["ann"], "request_id": ["r"], "timestamp": [7], "items": [[1, 3, 5, 0, 3]]})
    found = full(asked.cast({"items": pl.List(pl.Int32)}), actions, logs.contract())
    assert sorted(found.candidates.select("item", "labels").iter_rows()) == [(1, 0), (3, 1), (5, 0)]
    assert found.candidates["surface"].null_count() == 3


_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["ann", "bob"]),
            "item_id": st.sampled_from(["apple", "bread", "gone"]),
            "action": st.sampled_from(["buy", "hide", "seen", "seen"]),
            "timestamp": st.integers(0, 3),
            "request_id": st.sampled_from(["r", "q"]),
            "surface": st.sampled_from([None, "shelf", "page"]),
        }
    ),
    max_size=25,
)


def _slowly(rows: list[dict[str, object]]) -> dict[tuple[object, ...], tuple[object, ...]]:
    """(user, request, item) → moment of the request, surface and label, by going through the rows."""
    exposures, answers = defaultdict(list), defaultdict(set)
    for i, row in enumerate(rows):
        key = (row["user_id"], row["request_id"], row["item_id"])
        if row["action"] != "seen":
            answers[key].add(row["action"])
        elif row["item_id"] != "gone":
            exposures[key].append((row["timestamp"], f"{i:03d}", row["surface"]))
    found = {}
    for key, seen in exposures.items():
        began = min(moment for other, all_seen in exposures.items() if other[:2] == key[:2] for moment, *_ in all_seen)
        labels = ("buy" in answers[key]) + 2 * ("hide" in answers[key])
        found[key] = (began, min(seen)[2], labels)
    return found


@settings(max_examples=150, deadline=None)
@given(rows=_ROWS)
def test_requests_are_what_going_through_the_rows_finds(rows):
    asked = _asked([{**row, "event_id": f"{i:03d}"} for i, row in enumerate(rows)])
    assert asked.candidates.select("request", "item").equals(asked.candidates.select("request", "item").sort(pl.all()))
    joined = asked.candidates.join(asked.requests, on="request").with_columns(
        item=pl.col("item").map_elements(lambda i: logs.ITEM_IDS[i], pl.String)
    )
    keys = joined.select("user_id", "request_id", "item").rows()
    assert len(set(keys)) == len(keys)
    assert dict(zip(keys, joined.select("timestamp", "surface", "labels").rows(), strict=True)) == _slowly(rows)


@given(rows=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("abc")), max_size=20))
def test_numbers_are_places_among_the_sorted_distinct_rows(rows):
    frame = pl.DataFrame(rows, schema={"one": pl.String, "two": pl.String}, orient="row")
    places = sorted(set(rows))
    assert numbers(frame, ["one", "two"]).tolist() == [places.index(row) for row in rows]
