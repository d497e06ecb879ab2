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


def test_one_bad_time_among_good_ones_is_found(tmp_path):
    mapping = {**WIDE, "time": {"timestamp": {"column": "ms", "unit": "iso"}}}
    said = refused(tmp_path, mapping, ms=pl.Series(["2022-04-15", "2022-04-15", "soon", "2022-04-16"]))
    assert "row 3: column 'ms' holds 'soon' (1 such values in this batch)" in said


def test_an_absent_time_is_a_mistake_too(tmp_path):
    said = refused(tmp_path, WIDE, ms=pl.Series([None, *wide_log(3)["ms"]]))
    assert "row 1: column 'ms' holds None" in said


def test_a_log_in_which_no_time_can_be_read_says_so_when_asked_for_its_interval(tmp_path):
    wide_log(4).with_columns(ms=pl.lit("soon")).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(UserError, match=r"row 1: column 'ms' holds 'soon'"):
        open_source(declare(tmp_path, {"actions": WIDE}), 1.0).interval()


def test_an_empty_log_is_named(tmp_path):
    wide_log(4).clear().write_parquet(tmp_path / "log.parquet")
    with pytest.raises(UserError, match=r"there are no rows in .*log.parquet"):
        open_source(declare(tmp_path, {"actions": WIDE}), 1.0).interval()


def test_feedback_that_is_neither_0_nor_1_is_shown(tmp_path):
    said = refused(tmp_path, WIDE, is_like=pl.Series([0, 1, 7, 0]))
    assert "source.tables.actions.feedback.like" in said
    assert "row 3: column 'is_like' holds 7" in said
    assert "expected: 0 or 1" in said


def test_a_rating_that_is_no_number_is_shown(tmp_path):
    mapping = {**WIDE, "ratings": [{"column": "stars", "action": "hate", "below": 2}]}
    said = refused(tmp_path, mapping, stars=pl.Series(["5", "4", "good", "1"]))
    assert "ratings.0.column" in said
    assert "row 3: column 'stars' holds 'good'" in said


def test_an_action_outside_of_the_vocabulary_is_shown(tmp_path):
    mapping = without(WIDE, "feedback", "every_row")
    mapping["columns"] = {**WIDE["columns"], "action": "what"}
    said = refused(tmp_path, mapping, what=pl.Series(["click", "like", "share", "zoom"]))
    assert "row 3: column 'what' holds 'share', 'zoom', expected one of: impression, click, like, hate" in said
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
