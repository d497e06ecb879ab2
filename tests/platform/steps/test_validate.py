"""What the gate publishes, keeps back and refuses."""

import random
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from html import unescape
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from components.contract import user_bucket
from components.errors import UserError
from pinloom.lake import Lake
from pinloom.settings import Settings
from pinloom.steps.base import run_step
from pinloom.steps.validate import STEP
from tests.platform.validation.shop import FIRST, action, items, land, read, spec, table, validate


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(f"file://{tmp_path}/lake")


BAD = [
    action(100, event_id="e3", timestamp=FIRST + timedelta(hours=20)),
    action(101, item_id="never seen", timestamp=FIRST),
    action(102, action="SAVE", user_id="", timestamp=FIRST),
    action(103, timestamp=None),
]


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """(lake, manifest) of two days of which four rows of 24 are bad, with boards, users and requests."""
    lake = Lake(f"file://{tmp_path_factory.mktemp('gated')}/lake")
    day = {"timestamp": FIRST}
    landed = land(
        lake,
        {
            "actions": table("actions", [*(action(n) for n in reversed(range(20))), *BAD]),
            "boards": table("boards", [{"board_id": "b", "item_id": i, **day} for i in ("i1", "never seen")]),
            "users": table("users", [{"user_id": u} for u in ("u2", "u1", "u2")]),
            "requests": table("requests", [{"request_id": "r", "user_id": "u1", "item_ids": ["i1"], **day}]),
        },
        days=(0, 3),
    )
    return lake, validate(lake, landed, spec(max_quarantined=0.6))


def test_good_rows_are_published_and_bad_ones_quarantined_with_their_rules(gated):
    lake, manifest = gated
    assert sorted(read(lake, manifest, "actions")["event_id"]) == sorted(f"e{n}" for n in range(20))
    bad = {r["event_id"] + ("*" if r["timestamp"] is None else ""): r for r in _quarantined(lake, manifest, "actions")}
    assert {event: r["rules"] for event, r in bad.items()} == {
        "e3": ["event_id.repeated"],
        "e101": ["item_id.unknown"],
        "e102": ["action.unknown", "user_id.missing"],
        "e103*": ["timestamp.missing"],
    }
    assert bad["e102"]["user_id"] == ""
    assert bad["e101"]["value"] == 1.0
    assert [r["rules"] for r in _quarantined(lake, manifest, "boards")] == [["item_id.unknown"]]
    assert [r["rules"] for r in _quarantined(lake, manifest, "users")] == [["user_id.repeated"]]


def _quarantined(lake, manifest, name):
    files = [f for f in manifest.output("quarantine").files if f"/quarantine/{name}/" in f.uri]
    return [row for f in files for row in pl.read_parquet(lake.local_path(f.uri)).to_dicts()]


def test_the_manifest_counts_rows_per_table_and_rule(gated):
    _, manifest = gated
    assert manifest.metrics["rows"] == {"actions": 24, "items": 20, "users": 3, "boards": 2, "requests": 1}
    assert manifest.metrics["quarantined"] == {"actions": 4, "items": 0, "users": 1, "boards": 1, "requests": 0}
    assert manifest.metrics["rules"]["actions.event_id.repeated"] == 1
    assert manifest.output("quarantine").rows == 6
    assert manifest.output("actions").rows == 20


def test_actions_lie_by_day_in_row_groups_of_one_bucket_sorted_by_user_and_time(gated):
    lake, manifest = gated
    assert manifest.output("actions").partitions() == ["2026-03-01", "2026-03-02"]
    for path in lake.local_paths(manifest.output("actions")):
        file = pq.ParquetFile(path)
        groups = [pl.from_arrow(file.read_row_group(n)) for n in range(file.num_row_groups)]
        buckets = [g["bucket"].unique().to_list() for g in groups]
        assert buckets == [[b] for b in sorted({b for (b,) in buckets})]
        rows = pl.concat(groups)
        assert rows["bucket"].to_list() == [user_bucket(u, 4) for u in rows["user_id"]]
        assert rows.equals(rows.sort("bucket", "user_id", "timestamp", maintain_order=True))


def test_other_tables_are_published_too(gated):
    lake, manifest = gated
    assert read(lake, manifest, "items")["item_id"].to_list() == sorted(items()["item_id"])
    assert read(lake, manifest, "users")["user_id"].to_list() == ["u1", "u2"]
    assert read(lake, manifest, "boards")["item_id"].to_list() == ["i1"]
    assert read(lake, manifest, "requests")["item_ids"].to_list() == [["i1"]]


def test_the_report_can_be_read_without_a_network_and_leads_to_every_page(gated):
    lake, manifest = gated
    index = Path(lake.local_path(manifest.file("report", "index.html")))
    text = index.read_text()
    assert "shop, 2026-03-01 to 2026-03-03" in text
    assert "event_id.repeated" in text
    assert "e101" in text
    links = re.findall(r'href="(validations/[^"]+)"', text)
    assert {link.split("/")[1] for link in links} == {
        "actions", "items", "users", "boards", "requests", "schema", "tables", "days",
    }  # fmt: skip
    pages = [index.parent / link.replace("%20", " ") for link in links]
    assert all(p.is_file() for p in pages)
    for page in (index, *pages):
        assert not re.search(r"<(script|link|img)\b", page.read_text())
    actions = next(p for p in pages if p.parts[-4] == "actions").read_text()
    assert "item_id is a row of items" in actions
    assert "fa-times" in actions


def test_the_table_holds_the_days_and_their_quarantine_but_no_report(gated):
    lake, manifest = gated
    published = lake.require("actions")
    assert set(published.outputs) == {"actions", "boards", "requests", "quarantine", "items", "users"}
    assert published.output("actions") == manifest.output("actions")
    assert published.inputs["part"]["uri"] == manifest.uri


def test_validating_again_is_no_work_and_mends_a_lost_table(lake):
    landed = land(lake, {"actions": table("actions", map(action, range(20)))})
    first = validate(lake, landed)
    lake.fs.rm(lake.path("pointers", "actions"), recursive=True)
    again = validate(lake, landed)
    assert again == first
    assert lake.require("actions").output("actions") == first.output("actions")
    assert lake.pointer_version("actions") == 1


def test_thirty_days_in_any_order_and_at_once_make_the_table_of_one_run(tmp_path):
    rows = [action(n, user_id=f"u{n % 7}", timestamp=FIRST + timedelta(days=n // 8)) for n in range(240)]
    rows += [action(n, event_id="", timestamp=FIRST + timedelta(days=n % 30)) for n in range(10)]
    days = Lake(f"file://{tmp_path}/days")
    parts = [_between(days, rows, n, n + 1) for n in range(30)]
    random.Random(0).shuffle(parts)
    loose = spec(max_quarantined=0.5)
    uncommitted = replace(STEP, commit=None)
    for part in parts:
        validate(days, part, loose, uncommitted)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: validate(days, part, loose), parts))

    whole = Lake(f"file://{tmp_path}/whole")
    validate(whole, _between(whole, rows, 0, 30), loose)
    one, many = (lake.require("actions") for lake in (whole, days))
    assert many.output("actions").rows == 240
    assert many.output("quarantine").rows == 10
    assert many.key == one.key
    assert [f.sha256 for f in many.output("actions").files] == [f.sha256 for f in one.output("actions").files]


def _between(lake, rows, start, stop):
    days = {FIRST + timedelta(days=n) for n in range(start, stop)}
    return land(lake, {"actions": table("actions", [r for r in rows if r["timestamp"] in days])}, days=(start, stop))


def test_a_day_that_lost_all_its_rows_leaves_the_table(lake):
    rows = [action(n) for n in range(30)]
    validate(lake, land(lake, {"actions": table("actions", rows)}, days=(0, 3)))
    validate(lake, land(lake, {"actions": table("actions", rows[20:])}, days=(1, 3)))
    assert lake.require("actions").output("actions").partitions() == ["2026-03-01", "2026-03-03"]


def test_an_interval_without_any_row_passes(lake):
    manifest = validate(lake, land(lake, {}, days=(0, 2)))
    assert manifest.output("actions").files == ()
    assert lake.require("actions").output("items").rows == 20


def test_items_that_fail_take_their_actions_with_them(lake):
    ids = pl.concat(
        [items(["i0", "i1", ""]), items(["i2"]).with_columns(created_at=pl.lit(FIRST + timedelta(days=999)))]
    )
    landed = land(lake, {"items": ids, "actions": table("actions", [action(n) for n in range(3)])})
    manifest = validate(lake, landed, spec(max_quarantined=0.5))
    assert read(lake, manifest, "items")["item_id"].to_list() == ["i0", "i1"]
    assert manifest.metrics["rules"] == {
        "actions.item_id.unknown": 1,
        "items.created_at.in_future": 1,
        "items.item_id.missing": 1,
    }


@pytest.mark.parametrize("ties", ["ordered", "unordered"])
def test_tied_actions_keep_an_order_that_means_something_and_lose_one_that_does_not(tmp_path, ties):
    rows = [action(n, user_id="u", timestamp=FIRST, event_id=f"e{n:02d}") for n in range(40)]
    orders = []
    for name, source in (("forward", rows), ("backward", rows[::-1])):
        lake = Lake(f"file://{tmp_path}/{name}")
        manifest = validate(lake, land(lake, {"actions": table("actions", source)}), spec(ties=ties))
        orders.append(read(lake, manifest, "actions")["event_id"].to_list())
    forward, backward = orders
    if ties == "ordered":
        assert forward == [r["event_id"] for r in rows] == backward[::-1]
    else:
        assert forward == backward != sorted(forward)
        adjacent = [abs(int(a[1:]) - int(b[1:])) for a, b in pairwise(forward)]
        assert sum(gap == 1 for gap in adjacent) < 10


# -- what stops a run ----------------------------------------------------------------------------


def _stopped(lake, landed, declared=None) -> str:
    before = lake.pointer_version("actions")
    with pytest.raises(UserError) as e:
        validate(lake, landed, declared)
    assert lake.pointer_version("actions") == before
    rejected = lake.require("validate-rejected")
    assert rejected.file("report", "index.html") in str(e.value)
    assert rejected.uri in str(e.value)
    page = unescape(Path(lake.local_path(rejected.file("report", "index.html"))).read_text())
    assert all(line.split(": ", 1)[-1] in page for line in e.value.problem.splitlines()[1:-2])
    return str(e.value)


def test_a_full_quarantine_stops_the_run_and_keeps_every_row(lake):
    landed = land(lake, {"actions": table("actions", [action(n, action="look") for n in range(50)])})
    says = _stopped(lake, landed)
    assert "actions: 50 of 50 rows (100.0%) fail row-level rules, at most 5.0% may" in says
    assert 'action.unknown: 50 rows, e.g. {"event_id": "e0", "user_id": "u0"' in says
    assert "thresholds under 'validation' in shop.yaml" in says
    rejected = lake.require("validate-rejected")
    assert read(lake, rejected, "quarantine")["event_id"].n_unique() == 50
    assert rejected.metrics["quarantined"]["actions"] == 50


def test_a_run_that_was_stopped_is_judged_again_and_passes_with_a_higher_threshold(lake):
    landed = land(lake, {"actions": table("actions", [action(n, action="look" if n else "save") for n in range(4)])})
    _stopped(lake, landed)
    _stopped(lake, landed)
    assert lake.pointer_version("validate-rejected") == 2
    assert validate(lake, landed, spec(max_quarantined=0.75)).output("actions").rows == 1


def test_a_day_of_another_size_or_mix_than_the_one_published_before_stops_the_run(lake):
    day, busy = FIRST + timedelta(days=1), 6_000
    first = [action(n, timestamp=FIRST) for n in range(busy)]
    validate(lake, land(lake, {"actions": table("actions", first)}, days=(0, 1)))
    few = land(lake, {"actions": table("actions", [action(n, timestamp=day) for n in range(9)])}, days=(1, 2))
    says = _stopped(lake, few, spec(max_volume_change=5))
    assert "volume_factor.above_max" in says
    assert "e.g. 2026-03-02: 9 rows, volume_factor 6.94 against 2026-03-01" in says
    rows = [action(n, timestamp=day, action="hide") for n in range(busy)]
    landed = land(lake, {"actions": table("actions", rows)}, days=(1, 2))
    says = _stopped(lake, landed, spec(max_mix_change=0.4))
    assert "mix_change.above_max" in says
    passed = validate(lake, landed, spec(max_mix_change=None, max_volume_change=None))
    assert passed.output("actions").rows == busy


def test_a_landed_table_of_other_types_stops_the_run_before_any_row(lake):
    frame = table("actions", [action(0)]).with_columns(pl.col("value").cast(pl.String)).drop("surface")
    says = _stopped(lake, land(lake, {"actions": frame}))
    assert "column.type: actions.value has type String, expected Float64" in says
    assert "actions.surface has type missing, expected String" in says


def test_nothing_landed_is_answered_with_the_step_to_run(lake):
    with pytest.raises(UserError, match="nothing is published as 'landed'"):
        run_step(STEP, lake=lake, settings=Settings(), spec=spec())
