from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinloom.datasets.mapped.columns import EARLIEST, LATEST, flag, moment, number, text

MOMENTS = st.datetimes(datetime(1980, 1, 1), datetime(2199, 12, 31))
ZONES = st.integers(-12 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))


def parse(values: list, unit: str, dtype: pl.DataType | None = None) -> list:
    frame = pl.DataFrame({"t": pl.Series(values, dtype=dtype)})
    return frame.select(t=moment("t", frame.schema["t"], unit))["t"].to_list()


@settings(max_examples=50, deadline=None)
@given(MOMENTS, ZONES, st.sampled_from(["T", " "]))
def test_iso_text_with_an_offset_is_read_as_utc(moment_, zone, separator):
    aware = moment_.replace(tzinfo=zone)
    assert parse([aware.isoformat(sep=separator)], "iso") == [aware.astimezone(UTC)]


@settings(max_examples=50, deadline=None)
@given(MOMENTS)
def test_counted_times_agree_with_iso(moment_):
    aware = moment_.replace(tzinfo=UTC)
    micros = round((aware - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
    assert parse([micros], "us") == [aware]
    assert parse([str(micros)], "us") == [aware]
    assert parse([micros // 1000], "ms") == [aware.replace(microsecond=aware.microsecond // 1000 * 1000)]
    assert parse([micros // 1_000_000], "s") == [aware.replace(microsecond=0)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2022-04-10", datetime(2022, 4, 10, tzinfo=UTC)),
        ("2022-04-10 12:30", datetime(2022, 4, 10, 12, 30, tzinfo=UTC)),
        ("2022-04-10T12:30Z", datetime(2022, 4, 10, 12, 30, tzinfo=UTC)),
        ("2022-04-10T12:30+02:00", datetime(2022, 4, 10, 10, 30, tzinfo=UTC)),
        ("2022-04-10 12:30:05.25", datetime(2022, 4, 10, 12, 30, 5, 250_000, tzinfo=UTC)),
        (" 2022-04-10T12:30:05+0200 ", datetime(2022, 4, 10, 10, 30, 5, tzinfo=UTC)),
        ("10.04.2022", None),
        ("2022-13-01", None),
        ("", None),
    ],
)
def test_iso_text(value, expected):
    assert parse([value], "iso") == [expected]


def test_parquet_dates_and_datetimes_are_iso():
    naive = datetime(2022, 4, 10, 12)
    berlin = pl.Series([naive]).dt.replace_time_zone("Europe/Berlin")
    assert parse([naive.date()], "iso") == [datetime(2022, 4, 10, tzinfo=UTC)]
    assert parse([naive], "iso") == [datetime(2022, 4, 10, 12, tzinfo=UTC)]
    assert parse(berlin.to_list(), "iso", berlin.dtype) == [datetime(2022, 4, 10, 10, tzinfo=UTC)]


def test_fractions_of_seconds_are_kept():
    assert parse([1_650_000_000.5], "s") == [datetime(2022, 4, 15, 5, 20, 0, 500_000, tzinfo=UTC)]


def test_numbers_outside_of_plausible_years_are_no_times():
    assert parse([EARLIEST - 1, EARLIEST, LATEST - 1, LATEST], "s")[0::3] == [None, None]
    assert None not in parse([EARLIEST, LATEST - 1], "s")


@pytest.mark.parametrize("values", [[0, 1], [0.0, 1.0], ["0", "1"], ["false", "True"], [False, True], ["0.0", "1.0"]])
def test_flags(values):
    frame = pl.DataFrame({"f": values})
    assert frame.select(f=flag("f", frame.schema["f"]))["f"].to_list() == [False, True]


def test_text_and_numbers():
    frame = pl.DataFrame({"f": [1.0, 2.5], "i": [1, 2], "s": ["1e3", "x"]})
    assert frame.select(f=text("f", pl.Float64()))["f"].to_list() == ["1", "2.5"]
    assert frame.select(text("i", pl.Int64()))["i"].to_list() == ["1", "2"]
    assert frame.select(number("s"))["s"].to_list() == [1000.0, None]
