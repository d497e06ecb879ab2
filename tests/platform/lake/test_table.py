"""A table is what its parts say, whatever the order and company in which they were merged."""

import uuid
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from pinloom.lake import Lake, Manifest
from pinloom.lake.table import merge_partitions
from tests.platform.lake.examples import NOW, published

DAYS = [f"2017-03-{n:02d}" for n in range(1, 9)]


def _merge(lake: Lake, part: Manifest, covers: tuple[str, ...] = ()) -> Manifest:
    return merge_partitions(lake, "actions", part, partitioned=("rows",), whole=("items",), covers=covers, now=NOW)


def _part(lake: Lake, key: str, days: dict[str, bytes]) -> Manifest:
    return published(lake, "validate", key, {"rows": days, "items": {"": b"items"}, "report": {"": key.encode()}})


def _content(lake: Lake, table: Manifest) -> dict[str, bytes]:
    return {f.partition: lake.read_bytes(f.uri) for f in table.output("rows").files}


@given(st.permutations(DAYS), st.lists(st.sampled_from(DAYS), max_size=4))
@settings(max_examples=20, deadline=None)
def test_days_merged_in_any_order_and_again_are_the_table_of_one_part(order, again):
    lake = Lake(f"memory://{uuid.uuid4().hex}")
    parts = {day: _part(lake, day, {day: day.encode()}) for day in DAYS}
    for day in (*order, *again):
        table = _merge(lake, parts[day])
    assert lake.latest("actions") == table
    whole = Lake(f"{lake.root}/whole")
    one = _merge(whole, _part(whole, "all", {day: day.encode() for day in DAYS}))
    assert table.content_hash() == one.content_hash()
    assert table.key == one.key
    assert _content(lake, table) == {day: day.encode() for day in DAYS}


@given(st.lists(st.dictionaries(st.sampled_from(DAYS[:4]), st.binary(min_size=1, max_size=3), min_size=1), max_size=5))
@settings(max_examples=30, deadline=None)
def test_the_last_part_that_has_a_day_has_the_say(parts):
    lake = Lake(f"memory://{uuid.uuid4().hex}")
    expected: dict[str, bytes] = {}
    for n, days in enumerate(parts):
        table = _merge(lake, _part(lake, str(n), days))
        expected |= days
        assert _content(lake, table) == expected


def test_a_day_that_a_part_covers_without_rows_leaves_the_table(local_lake):
    _merge(local_lake, _part(local_lake, "a", {"d1": b"1", "d2": b"2", "d3": b"3"}))
    table = _merge(local_lake, _part(local_lake, "b", {"d1": b"new"}), covers=("d1", "d2"))
    assert _content(local_lake, table) == {"d1": b"new", "d3": b"3"}


def test_only_the_outputs_named_enter_the_table(local_lake):
    table = _merge(local_lake, _part(local_lake, "a", {"d1": b"1"}))
    assert set(table.outputs) == {"rows", "items"}
    assert table.metrics == {"rows": {"rows": 1, "items": 5}}


def test_parts_merged_by_many_at_once_are_all_there(local_lake):
    parts = [_part(local_lake, day, {day: day.encode()}) for day in DAYS]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: _merge(local_lake, part), parts))
    table = local_lake.require("actions")
    assert _content(local_lake, table) == {day: day.encode() for day in DAYS}


def test_merging_again_moves_nothing(local_lake):
    part = _part(local_lake, "a", {"d1": b"1"})
    first = _merge(local_lake, part)
    assert _merge(local_lake, part) == first
    assert local_lake.pointer_version("actions") == 1
