"""Actions reach the lake durably, once, under the day that they belong to."""

from datetime import date, datetime, timedelta, timezone

import polars as pl

from components.contract import ACTIONS
from pinloom.lake import Lake
from pinloom.serving.landing import frame, land
from pinloom.serving.schemas import Action
from pinloom.steps import landed


def action(event: str, timestamp: str = "2026-03-01T12:00:00Z", **fields) -> Action:
    return Action(event_id=event, user_id="u", item_id="i", action="buy", timestamp=timestamp, **fields)


def test_ingest_reads_back_what_was_landed(tmp_path):
    lake = Lake(f"file://{tmp_path}")
    actions = [action("a", surface="shelf", value=2.5), action("b", "2026-03-02T00:00:00Z")]
    land(lake, frame(actions))
    rows = pl.concat(landed.read(lake, date(2026, 3, 1), date(2026, 3, 3), 1.0))
    assert rows["event_id"].to_list() == ["a", "b"]
    assert rows.select("surface", "value").row(0) == ("shelf", 2.5)
    assert landed.days(lake) == [date(2026, 3, 1), date(2026, 3, 2)]


def test_the_day_is_that_of_utc(tmp_path):
    lake = Lake(f"file://{tmp_path}")
    late = datetime(2026, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    land(lake, frame([action("a", late.isoformat())]))
    assert landed.days(lake) == [date(2026, 3, 2)]


def test_a_repeated_post_lands_once(tmp_path):
    lake = Lake(f"file://{tmp_path}")
    actions = [action("a"), action("b")]
    assert land(lake, frame(actions)) == land(lake, frame(actions[::-1]))
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_of_one_event_sent_twice_in_a_post_the_first_counts():
    rows = frame([action("a", value=1.0), action("b"), action("a", value=2.0)])
    assert rows.schema == ACTIONS
    assert sorted(zip(rows["event_id"], rows["value"], strict=True)) == [("a", 1.0), ("b", None)]


def test_any_store_that_fsspec_knows_takes_them():
    lake = Lake("memory://landing-test")
    (uri,) = land(lake, frame([action("a")]))
    with lake.fs.open(uri, "rb") as f:
        assert pl.read_parquet(f)["event_id"].to_list() == ["a"]
