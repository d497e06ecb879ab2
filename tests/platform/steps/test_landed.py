"""Posts are merged and tidied away, and whoever reads them notices nothing."""

import os
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contract import ACTIONS
from pinloom.lake import Lake
from pinloom.lake.gc import collect
from pinloom.serving.landing import land
from pinloom.settings import get_settings
from pinloom.steps import landed
from tests.platform.datasets.logs import WIDE, wide_log, write_yaml

DAYS = (date(2022, 4, 10), date(2022, 4, 13))


def post(lake: Lake, *events: tuple[str, int] | tuple[str, int, str]) -> list[str]:
    """One post of (event, day of April 2022, item). Returns its files."""
    rows = [
        {
            "event_id": e,
            "user_id": "9",
            "item_id": "".join(item) or "v1",
            "action": "like",
            "timestamp": datetime(2022, 4, d, tzinfo=UTC),
        }
        for e, d, *item in events
    ]
    return land(lake, pl.DataFrame(rows, schema=ACTIONS))


def posts(lake: Lake) -> list[str]:
    return sorted(lake.fs.glob(lake.path("landed/realtime/day=*/*.parquet")))


def seen(lake: Lake) -> tuple[str, list[tuple[object, ...]]]:
    """What an ingest has of the posts."""
    return landed.fingerprint(lake, *DAYS), sorted(r for f in landed.read(lake, *DAYS, 1.0) for r in f.rows())


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def age(lake: Lake, days: float, paths: list[str] | None = None) -> None:
    """Let files, by default all, be older."""
    for path in posts(lake) if paths is None else paths:
        path = path.removeprefix("file://")
        written = os.stat(path).st_mtime - days * 86_400
        os.utime(path, (written, written))


EVENT = st.tuples(st.sampled_from("abcd"), st.integers(10, 11), st.sampled_from(["v1", "v2", "v3"]))
POSTS = st.lists(st.tuples(st.booleans(), st.lists(EVENT, min_size=1, max_size=3)), max_size=6)
"""Each of events, and fresh or not. Two rows of one event may differ, which of them counts may not."""


@settings(max_examples=20, deadline=None)
@given(first=POSTS, later=POSTS, runs=st.integers(1, 3))
def test_what_an_ingest_reads_and_its_key_stay_through_any_tidying(tmp_path_factory, first, later, runs):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    for some in (first, later):
        for fresh, events in some:
            written = post(lake, *events)
            age(lake, 0 if fresh else 2, written)
        before = seen(lake)
        for _ in range(runs):
            landed.tidy(lake, in_days(-1))
            assert seen(lake) == before
            age(lake, 2, [p for p in posts(lake) if p.rsplit("/", 1)[-1].startswith(landed.MERGED)])
        assert seen(lake) == before


def test_which_of_two_rows_of_one_event_counts_does_not_depend_on_which_were_merged(tmp_path):
    lake = Lake(str(tmp_path))
    _, *old = sorted(
        (post(lake, ("twice", 10, f"v{n}"), (f"e{n}", 10))[0] for n in range(5)), key=lambda uri: uri.rsplit("/", 1)[-1]
    )
    age(lake, 2, old)
    before = seen(lake)
    assert landed.tidy(lake, in_days(-1))["landed_merged"] == 1
    assert seen(lake) == before


def test_posts_are_merged_first_and_go_when_that_is_a_day_old(tmp_path):
    lake = Lake(str(tmp_path))
    for n in range(5):
        post(lake, (f"e{n}", 10))
    post(lake, ("alone", 11))
    assert landed.tidy(lake, in_days(-1)) == {"landed_merged": 0, "landed_removed": 0}
    age(lake, 2)
    assert landed.tidy(lake, in_days(-1), dry_run=True) == {"landed_merged": 1, "landed_removed": 0}
    assert landed.tidy(lake, in_days(-1)) == {"landed_merged": 1, "landed_removed": 0}
    assert landed.tidy(lake, in_days(-1)) == {"landed_merged": 0, "landed_removed": 0}
    age(lake, 2)
    assert landed.tidy(lake, in_days(-1)) == {"landed_merged": 0, "landed_removed": 5}
    assert len(posts(lake)) == 2


def test_a_post_that_comes_while_others_are_merged_stays(tmp_path, monkeypatch):
    lake = Lake(str(tmp_path))
    post(lake, ("a", 10))
    post(lake, ("b", 10))
    merge = landed._merge

    def meanwhile(*args):
        merge(*args)
        post(lake, ("c", 10))

    monkeypatch.setattr(landed, "_merge", meanwhile)
    landed.tidy(lake, in_days(1))
    landed.tidy(lake, in_days(1))
    assert [row[0] for row in seen(lake)[1]] == ["a", "b", "c"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PINLOOM_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


def test_gc_tidies_what_was_posted(home):
    wide_log().write_parquet(home / "log.parquet")
    dataset = str(write_yaml(home, {"actions": WIDE}))
    lake = Lake(f"file://{home}/home/lake/shop")
    for n in range(3):
        post(lake, (f"e{n}", 10))
    age(lake, 2)
    said = collect(dry_run=False, dataset=dataset)
    assert (said["removed"], said["landed_merged"]) == (0, 1)
    age(lake, 2)
    assert collect(dry_run=False, dataset=dataset)["landed_removed"] == 3
    assert len(posts(lake)) == 1
