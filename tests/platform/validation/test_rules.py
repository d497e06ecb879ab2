"""Great Expectations and a plain loop find the same rules failed, and no row is ever lost."""

from datetime import UTC, datetime, timedelta
from math import inf, isfinite, nan

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contract import TABLES
from pinloom.lake import Lake
from pinloom.validation import rules
from pinloom.validation.days import DAY
from pinloom.validation.judge import Judge
from pinloom.validation.quarantine import Tally, separate
from pinloom.validation.rules import Bounds
from tests.platform.validation.shop import FIRST, ITEMS, LANDED_AT, spec

BOUNDS = Bounds.of(spec(earliest="2026-01-01"), LANDED_AT)
TIMES = [None, datetime(2025, 12, 31, 23, 59, 59, 999_999, UTC), BOUNDS.earliest, FIRST, LANDED_AT]
TIMES.append(LANDED_AT + timedelta(microseconds=1))
IDS = st.sampled_from([None, "", "a", "b"])
ACTION = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from([None, "", "e1", "e2", "e3"]),
        "user_id": IDS,
        "item_id": st.sampled_from([None, "", "i1", "i2", "never seen"]),
        "action": st.sampled_from([None, "", "save", "view", "SAVE"]),
        "timestamp": st.sampled_from(TIMES),
        "value": st.sampled_from([None, 0.0, -1.5, nan, inf]),
        "sampling_probability": st.sampled_from([None, 0.0, 1e-9, 1.0, 1.5, -1.0, nan, inf]),
        DAY: st.sampled_from(["2026-03-01", "2026-03-02"]),
    }
)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return Judge(LANDED_AT, tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="module")
def suite():
    return rules.actions(BOUNDS, pl.Series(ITEMS))


def _expected(row: dict) -> set[str]:
    """The slow twin of every rule that looks at one row."""
    at, value, probability = row["timestamp"], row["value"], row["sampling_probability"]
    failed = {f"{c}.missing" for c in ("event_id", "user_id", "item_id", "action") if not row[c]}
    failed |= {"timestamp.missing"} if at is None else set()
    failed |= {"timestamp.too_early"} if at and at < BOUNDS.earliest else set()
    failed |= {"timestamp.in_future"} if at and at > BOUNDS.landed_at else set()
    failed |= {"action.unknown"} if row["action"] and row["action"] not in BOUNDS.actions else set()
    failed |= {"item_id.unknown"} if row["item_id"] and row["item_id"] not in ITEMS else set()
    failed |= {"value.not_finite"} if value is not None and not isfinite(value) else set()
    inside = probability is None or 0 < probability <= 1
    return failed | (set() if inside else {"sampling_probability.out_of_range"})


def _separate(judge, suite, frame):
    tally, quarantine = Tally(), Lake("memory://rules").writer("validate", "k", "quarantine", str(id(frame)))
    good = separate(judge, suite, frame, batch="all", tally=tally, output=quarantine)
    files = [pl.read_parquet(Lake("memory://rules").fs.open(uri)) for uri in quarantine.output().uris]
    bad = pl.concat(files) if files else frame.clear().with_columns(rules=pl.lit([], pl.List(pl.String))).drop(DAY)
    return good, bad, tally


@given(st.lists(ACTION, max_size=80))
@settings(max_examples=15, deadline=None)
def test_every_row_is_published_or_quarantined_with_exactly_the_rules_that_it_fails(judge, suite, rows):
    numbered = [row | {"surface": str(n)} for n, row in enumerate(rows)]
    frame = pl.DataFrame(numbered, schema={**TABLES["actions"], DAY: pl.String()})
    good, bad, tally = _separate(judge, suite, frame)

    got = {row["surface"]: set() for row in good.to_dicts()}
    got |= {row["surface"]: set(row["rules"]) for row in bad.to_dicts()}
    assert len(got) == len(rows) == good.height + bad.height
    assert (tally.rows, tally.quarantined) == (len(rows), bad.height)
    for row in numbered:
        assert got[row["surface"]] - {"event_id.repeated"} == _expected(row), row

    events: dict[tuple[str, str], list[set[str]]] = {}
    for row in numbered:
        if row["event_id"]:
            events.setdefault((row[DAY], row["event_id"]), []).append(got[row["surface"]])
        else:
            assert "event_id.repeated" not in got[row["surface"]]
    for same in events.values():
        assert sum("event_id.repeated" not in failed for failed in same) == 1

    counted = {rule: sum(rule in failed for failed in got.values()) for rule in tally.rules}
    assert tally.rules == counted
    assert set().union(*got.values()) == set(tally.rules) == set(tally.examples)


@given(st.lists(ACTION, max_size=50), st.randoms(use_true_random=False))
@settings(max_examples=8, deadline=None)
def test_which_of_equal_events_stays_depends_neither_on_the_order_nor_on_other_days(judge, suite, rows, random):
    schema = {**TABLES["actions"], DAY: pl.String()}
    shuffled = random.sample(rows, len(rows))
    together, _, _ = _separate(judge, suite, pl.DataFrame(shuffled, schema=schema))
    apart = [
        _separate(judge, suite, pl.DataFrame([r for r in rows if r[DAY] == day], schema=schema))[0]
        for day in ("2026-03-01", "2026-03-02")
    ]
    assert together.sort(pl.all()).equals(pl.concat(apart).sort(pl.all()))


def _failed(judge, suite, rows: list[dict], schema: dict) -> list[list[str]]:
    frame = pl.DataFrame([{DAY: "d", **row} for row in rows], schema={**schema, DAY: pl.String()})
    failed = judge.failures(suite.table, "all", suite.look(frame), suite.rules)
    return [sorted(rule for rule, numbers in failed.items() if n in numbers) for n in range(len(rows))]


def test_items_are_unique_born_before_they_landed_and_described_by_numbers(judge):
    schema = {**TABLES["items"], "features.price": pl.Float64(), "features.brand": pl.String()}
    rows = [
        {"item_id": "i1", "features.price": 1.0, "created_at": LANDED_AT},
        {"item_id": "i1", "features.price": 2.0, "created_at": LANDED_AT},
        {"item_id": "i2", "features.price": nan, "created_at": None},
        {"item_id": "i3", "features.price": None, "created_at": LANDED_AT + timedelta(seconds=1)},
        {"item_id": ""},
        {"item_id": None},
    ]
    got = _failed(judge, rules.items(BOUNDS), rows, schema)
    assert got == [
        [],
        ["item_id.repeated"],
        ["features.not_finite"],
        ["created_at.in_future"],
        ["item_id.missing"],
        ["item_id.missing"],
    ]


def test_an_item_enters_a_board_once_at_a_time_and_its_time_may_be_unknown(judge):
    rows = [
        {"board_id": "b", "item_id": "i1", "timestamp": FIRST},
        {"board_id": "b", "item_id": "i1", "timestamp": FIRST},
        {"board_id": "b", "item_id": "i1", "timestamp": FIRST + timedelta(hours=1)},
        {"board_id": "b", "item_id": "i1", "timestamp": None},
        {"board_id": "b", "item_id": "i1", "timestamp": None},
        {"board_id": None, "item_id": "never seen", "timestamp": LANDED_AT + timedelta(days=1)},
    ]
    got = _failed(judge, rules.boards(BOUNDS, pl.Series(ITEMS)), rows, TABLES["boards"])
    repeated, bad = ["row.repeated"], ["board_id.missing", "item_id.unknown", "timestamp.in_future"]
    assert got == [[], repeated, [], [], repeated, bad]


def test_users_are_unique_and_requests_show_something(judge):
    assert _failed(judge, rules.users(), [{"user_id": u} for u in ("a", "b", "a", None)], TABLES["users"]) == [
        [],
        [],
        ["user_id.repeated"],
        ["user_id.missing"],
    ]
    good = {"request_id": "r", "user_id": "u", "timestamp": FIRST, "item_ids": ["i1", "never seen"]}
    rows = [good, good | {"item_ids": []}, good | {"item_ids": None}, good | {"user_id": "", "timestamp": None}]
    assert _failed(judge, rules.requests(BOUNDS), rows, TABLES["requests"]) == [
        [],
        ["item_ids.missing"],
        ["item_ids.missing"],
        ["timestamp.missing", "user_id.missing"],
    ]


def test_an_expectation_that_could_not_be_evaluated_is_no_verdict(judge, suite):
    frame = pl.DataFrame([{DAY: "d"}], schema={**TABLES["actions"], DAY: pl.String()})
    seen = suite.look(frame).with_columns(timestamp=pl.lit("yesterday"))
    with pytest.raises(RuntimeError, match="suite 'actions', expect_column_values_to_be_between"):
        judge.failures("actions", "broken", seen, suite.rules)
