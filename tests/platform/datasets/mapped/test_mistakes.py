"""A mistake in a mapping is answered with the column, what was expected, and the columns that there are."""

import polars as pl
import pytest

from components.errors import UserError
from pinloom.datasets.source import open_source
from tests.platform.datasets.logs import WIDE, declare, wide_log, without
from tests.platform.datasets.mapped.test_log import read

COLUMNS = "uid, vid, ms, is_click, is_like, stars"


def refused(tmp_path, mapping, **columns: pl.Series) -> str:
    wide_log(4).with_columns(**columns).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(UserError) as e:
        read(declare(tmp_path, {"actions": mapping}))
    return str(e.value)


def test_files_that_do_not_exist_list_what_is_there(tmp_path):
    said = refused(tmp_path, {**WIDE, "files": "logs/*.parquet"})
    assert f"source.tables.actions.files: 'logs/*.parquet' matches nothing in {tmp_path}" in said
    assert "there is: log.parquet, shop.yaml" in said


def test_a_root_that_does_not_exist_is_named(tmp_path):
    spec = declare(tmp_path, {}, source={"root": "nowhere", "tables": {"actions": WIDE}})
    with pytest.raises(UserError, match=r"matches nothing in .*/nowhere[\s\S]*no such folder"):
        open_source(spec, 1.0).interval()


def test_a_missing_environment_variable_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("SHOP_LOGS", raising=False)
    spec = declare(tmp_path, {}, source={"root": "${SHOP_LOGS}/x", "tables": {"actions": WIDE}})
    with pytest.raises(UserError, match=r"SHOP_LOGS is not set[\s\S]*export SHOP_LOGS="):
        open_source(spec, 1.0).interval()


def test_environment_variables_and_their_defaults_are_filled_in(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    wide_log().write_parquet(tmp_path / "here" / "log.parquet")
    monkeypatch.setenv("SHOP_LOGS", str(tmp_path / "here"))
    for root in ("${SHOP_LOGS}", "${SHOP_NOWHERE:-here}", "./here"):
        assert read(declare(tmp_path, {}, source={"root": root, "tables": {"actions": WIDE}})).height == 13


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"columns": {"user_id": "user", "item_id": "vid"}}, "columns.user_id", "the values of user_id"),
        ({"columns": {**WIDE["columns"], "value": "user"}}, "columns.value", "numbers"),
        ({"time": {"timestamp": {"column": "user", "unit": "ms"}}}, "time.timestamp", "a time in unit 'ms'"),
        ({"feedback": {"click": "user"}}, "feedback.click", "0 or 1"),
        ({"ratings": [{"column": "user", "action": "like", "below": 3}]}, "ratings.0.column", "numbers"),
    ],
)
def test_a_missing_column_is_named_with_those_there_are(tmp_path, change, field, expected):
    said = refused(tmp_path, {**WIDE, **change})
    assert f"source.tables.actions.{field}: {tmp_path}/log.parquet has no column 'user'" in said
    assert f"(expected: {expected})" in said
    assert f"columns that there are: {COLUMNS}" in said


@pytest.mark.parametrize(
    ("unit", "values", "hint"),
    [
        ("s", [1_650_000_000_000] * 4, "with unit 'ms' it would be 2022-04-15"),
        ("us", [1_650_000_000] * 4, "with unit 's' it would be 2022-04-15"),
        ("ms", ["2022-04-15"] * 4, "choose the unit"),
        ("iso", ["1650000000"] * 4, "with unit 's' it would be 2022-04-15"),
        ("iso", [1_650_000_000_000] * 4, "with unit 'ms' it would be 2022-04-15"),
        ("iso", ["15/04/2022"] * 4, "choose the unit"),
    ],
)
def test_a_time_that_is_none_is_shown_with_its_row_and_the_likely_unit(tmp_path, unit, values, hint):
    mapping = {**WIDE, "time": {"timestamp": {"column": "ms", "unit": unit}}}
    said = refused(tmp_path, mapping, ms=pl.Series(values))
    assert "log.parquet, row 1: column 'ms' holds " + repr(values[0]) in said
    assert f"expected: a time in unit '{unit}'" in said
    assert hint in said
    assert COLUMNS in said


def test_a_log_in_which_no_time_can_be_read_says_so_when_asked_for_its_interval(tmp_path):
    wide_log(4).with_columns(ms=pl.lit("soon")).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(UserError, match=r"row 1: column 'ms' holds 'soon'"):
        open_source(declare(tmp_path, {"actions": WIDE}), 1.0).interval()


def test_a_column_without_a_single_good_value_is_a_mistake_in_whichever_file_it_shows(tmp_path):
    """Files of one mapping are looked at together: the first alone would say nothing of its empty column."""
    wide_log(2).with_columns(stars=pl.lit(None, pl.String)).write_parquet(tmp_path / "log-1.parquet")
    wide_log(2).with_columns(stars=pl.lit("good")).write_parquet(tmp_path / "log-2.parquet")
    mapping = {**WIDE, "files": "log-*.parquet", "ratings": [{"column": "stars", "action": "hate", "below": 2}]}
    with pytest.raises(UserError, match=r"ratings.0.column: .*log-2.parquet, row 1: column 'stars' holds 'good'"):
        open_source(declare(tmp_path, {"actions": mapping}), 1.0).interval()


def test_an_absent_user_in_all_rows_is_a_mistake(tmp_path):
    said = refused(tmp_path, WIDE, uid=pl.lit(None, pl.Int64))
    assert "columns.user_id" in said
    assert "row 1: column 'uid' holds None, expected: text or a number" in said


def test_an_empty_log_is_named(tmp_path):
    wide_log(4).clear().write_parquet(tmp_path / "log.parquet")
    with pytest.raises(UserError, match=r"there are no rows in .*log.parquet"):
        open_source(declare(tmp_path, {"actions": WIDE}), 1.0).interval()


@pytest.mark.parametrize(
    ("change", "columns", "field", "expected"),
    [
        ({}, {"is_like": pl.Series([3, 4, 7, 5])}, "feedback.like", "0 or 1"),
        (
            {"ratings": [{"column": "stars", "action": "hate", "below": 2}]},
            {"stars": pl.Series(["a", "b", "good", "c"])},
            "ratings.0.column",
            "a number",
        ),
    ],
)
def test_a_column_of_other_values_is_shown(tmp_path, change, columns, field, expected):
    said = refused(tmp_path, {**WIDE, **change}, **columns)
    (column, values), *_ = columns.items()
    assert f"source.tables.actions.{field}" in said
    assert f"row 1: column '{column}' holds {values[0]!r}, expected: {expected}" in said


def test_actions_of_which_none_is_in_the_vocabulary_are_shown(tmp_path):
    mapping = without(WIDE, "feedback", "every_row")
    mapping["columns"] = {**WIDE["columns"], "action": "what"}
    said = refused(tmp_path, mapping, what=pl.Series(["share", "zoom", "share", "zoom"]))
    assert "row 1: column 'what' holds 'share', expected: one of: impression, click, like, hate" in said
    assert "action_values" in said


def test_a_file_that_is_not_what_its_name_says(tmp_path):
    (tmp_path / "log.parquet").write_text("uid,vid\n1,2\n")
    with pytest.raises(UserError, match=r"log.parquet cannot be read as Parquet"):
        read(declare(tmp_path, {"actions": WIDE}))


def test_a_kind_of_file_that_is_not_read(tmp_path):
    (tmp_path / "log.xlsx").write_text("")
    with pytest.raises(UserError, match=r"is of no known kind[\s\S]*\.parquet, \.csv"):
        read(declare(tmp_path, {"actions": {**WIDE, "files": "log.*"}}))


def test_a_list_is_expected_where_one_is_needed(tmp_path):
    wide_log().write_parquet(tmp_path / "log.parquet")
    (tmp_path / "i.csv").write_text("id,vec\nv1,0.5\n")
    items = {"files": "i.csv", "columns": {"item_id": "id"}, "vector_features": {"image": "vec"}}
    with pytest.raises(UserError, match=r"vector_features.image: column 'vec' .* holds String, expected: lists"):
        open_source(declare(tmp_path, {"actions": WIDE, "items": items}), 1.0).items()


LISTS = pl.Series([["a"], ["b"], ["c"], ["d"]])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"columns": {"user_id": "tags", "item_id": "vid"}}, "columns.user_id"),
        ({"columns": {**WIDE["columns"], "value": "tags"}}, "columns.value"),
        ({"feedback": {"click": "tags"}}, "feedback.click"),
        ({"time": {"timestamp": {"column": "tags", "unit": "ms"}}}, "time.timestamp"),
    ],
)
def test_a_list_is_refused_where_single_values_are_needed(tmp_path, change, field):
    said = refused(tmp_path, {**WIDE, **change}, tags=LISTS)
    assert f"source.tables.actions.{field}: column 'tags' of " in said
    assert "holds List(String), expected: " in said
    assert f"map a column of single values; columns that there are: {COLUMNS}, tags" in said


def test_a_list_is_no_category_of_an_item(tmp_path):
    pl.DataFrame({"id": ["v0", "v1", "v2", "v3"], "tags": LISTS}).write_parquet(tmp_path / "items.parquet")
    wide_log().write_parquet(tmp_path / "log.parquet")
    items = {"files": "items.parquet", "columns": {"item_id": "id", "category": "tags"}}
    with pytest.raises(UserError, match=r"items\.columns\.category: column 'tags' of .* holds List\(String\)"):
        open_source(declare(tmp_path, {"actions": WIDE, "items": items}), 1.0).items()


TOO_MANY_CELLS = b"1,v1,1649548800000,0,0,3.0,more,and more\n"
NO_UTF8 = b"\xff\xfe\xfa,v1,1649548800000,0,0,3.0\n"


@pytest.mark.parametrize("line", [TOO_MANY_CELLS, NO_UTF8])
@pytest.mark.parametrize("before", [2, 12_000])
def test_a_line_that_is_no_csv_is_answered_with_the_file(tmp_path, line, before):
    """Also where the damage lies behind what is looked at before anything is read."""
    head, *rows = wide_log(2).write_csv().encode().splitlines(keepends=True)
    (tmp_path / "log.csv").write_bytes(b"".join([head, *rows * (before // 2), line, *rows]))
    rating = {"ratings": [{"column": "stars", "action": "hate", "below": 2}]}
    spec = declare(tmp_path, {"actions": {**WIDE, **rating, "files": "log.csv"}})
    passes = [lambda: read(spec)]
    if line == NO_UTF8:
        passes += [lambda: open_source(spec, 1.0).interval(), lambda: open_source(spec, 1.0).items()]
    for ask in passes:
        with pytest.raises(UserError, match=r"log\.csv cannot be read as CSV in UTF-8[\s\S]*source\.tables\.actions"):
            ask()
