"""Splits: fixed dates, or days counted back from each snapshot."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.contract import Splits
from components.errors import UserError

BURN_IN = date(2026, 1, 5)


def test_fixed_splits_are_the_same_for_every_snapshot():
    splits = Splits(burn_in=BURN_IN, validation=date(2026, 2, 1), test=date(2026, 2, 8), end=date(2026, 3, 1))
    assert splits.as_of(date(2027, 1, 1)) is splits
    assert splits.interval("train") == (datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 500))
def test_rolling_splits_end_with_the_snapshot_and_leave_all_before_to_training(validation, test, train):
    day = BURN_IN + timedelta(days=train + validation + test)
    found = Splits(burn_in=BURN_IN, validation=validation, test=test).as_of(day)
    lengths = [(stop - start).days for start, stop in map(found.interval, ("train", "validation", "test"))]
    assert lengths == [train, validation, test]
    assert found.interval("test")[1].date() == day
    assert found.as_of(day + timedelta(days=1)) == found


def test_a_log_too_short_for_its_rolling_splits_is_told():
    with pytest.raises(UserError, match=r"nothing after the burn-in .* is left to train on"):
        Splits(burn_in=BURN_IN, validation=14, test=7).as_of(BURN_IN + timedelta(days=21))


def test_rolling_splits_are_not_dates_before_there_is_a_snapshot():
    with pytest.raises(UserError, match="counted back from a snapshot"):
        Splits(burn_in=BURN_IN, validation=14, test=7).interval("test")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"validation": 14, "test": date(2026, 2, 8)}, "both dates"),
        ({"validation": 14, "test": 7, "end": date(2026, 2, 8)}, "without"),
        ({"validation": date(2026, 2, 1), "test": date(2026, 2, 8)}, "need an end"),
        ({"validation": date(2026, 2, 8), "test": date(2026, 2, 1), "end": date(2026, 3, 1)}, "burn_in < validation"),
        ({"validation": 0, "test": 7}, r"validation\n.*0 is no date and no number of days \(1 or more\)"),
        ({"validation": 14, "test": -7}, r"test\n.*-7 is no date and no number of days"),
        ({"validation": 14.0, "test": 7}, r"14\.0 is no date and no number of days"),
        ({"validation": 0, "test": 0}, "0 is no date and no number of days"),
    ],
)
def test_splits_that_make_no_sense_are_refused(given, says):
    with pytest.raises(ValidationError, match=says):
        Splits(burn_in=BURN_IN, **given)
