"""Days are held against the last published day before them; small days are not stopped for their wobble."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinloom.lake import Lake
from pinloom.validation.drift import Days, mix_change, volume_factor
from tests.platform.lake.examples import NOW, published

COUNTS = st.dictionaries(st.sampled_from(["save", "hide", "view"]), st.integers(0, 10**7), max_size=3)


@given(COUNTS, COUNTS)
def test_a_factor_is_at_least_one_and_the_same_both_ways(new, old):
    assert volume_factor(new, old) == volume_factor(old, new) >= 1


@given(COUNTS, COUNTS)
def test_a_change_of_mix_is_a_share_and_zero_for_the_same_day(new, old):
    assert 0 <= mix_change(new, old) <= 1
    assert mix_change(new, new) == 0


@pytest.mark.parametrize(("rows", "stopped"), [(10, False), (10_000_000, True)])
def test_the_same_change_is_chance_on_a_small_day_and_drift_on_a_large_one(rows, stopped):
    old, new = {"save": rows, "view": rows}, {"view": rows // 8}
    assert (volume_factor(new, old) > 5) == stopped
    assert (mix_change(new, old) > 0.4) == stopped


def test_of_large_days_the_numbers_are_what_they_say():
    old, new = {"save": 10**9, "view": 3 * 10**9}, {"save": 10**9, "hide": 10**9}
    assert volume_factor(new, old) == pytest.approx(2, rel=1e-5)
    assert mix_change(new, old) == pytest.approx(0.75, rel=1e-5)


def _table(lake: Lake, days: dict[str, list[str]]):
    manifest = published(lake, "table", "t")
    writer = lake.writer("table", "t", "actions", "a1")
    for day, actions in days.items():
        writer.parquet(f"{day}.parquet", pl.DataFrame({"action": actions}), partition=day)
    return manifest.model_copy(update={"outputs": {"actions": writer.output()}, "created_at": NOW})


def _compare(lake: Lake, known: dict[str, list[str]], own: dict[str, list[str]], replaced=()) -> dict[str, str | None]:
    days = Days(lake, _table(lake, known) if known else None)
    rows = [(day, action) for day, actions in own.items() for action in actions]
    days.add(pl.DataFrame(rows, schema=["day", "action"], orient="row"))
    return {r["day"]: r["against"] for r in days.compare(replaced).to_dicts()}


def test_a_day_is_held_against_the_last_before_it_in_this_run_or_published():
    lake = Lake("memory://drift")
    known = {"2026-03-01": ["save"], "2026-03-04": ["save"]}
    own = {d: ["save"] for d in ("2026-03-02", "2026-03-03", "2026-03-06")}
    against = {"2026-03-02": "2026-03-01", "2026-03-03": "2026-03-02", "2026-03-06": "2026-03-04"}
    assert _compare(lake, known, own) == against


def test_a_backfill_before_all_that_is_published_is_held_against_the_first_day_after_it():
    lake = Lake("memory://drift")
    assert _compare(lake, {"2026-03-04": ["save"]}, {"2026-03-02": ["save"]}) == {"2026-03-02": "2026-03-04"}
    assert _compare(lake, {}, {"2026-03-02": ["save"]}) == {"2026-03-02": None}


def test_a_day_that_is_replaced_is_not_held_against_itself():
    lake = Lake("memory://drift")
    known = {"2026-03-01": ["save"], "2026-03-02": ["hide"]}
    assert _compare(lake, known, {"2026-03-02": ["save"]}, ["2026-03-02"]) == {"2026-03-02": "2026-03-01"}
    assert _compare(lake, {"2026-03-02": ["hide"]}, {"2026-03-02": ["save"]}, ["2026-03-02"]) == {"2026-03-02": None}
