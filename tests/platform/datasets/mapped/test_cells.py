"""One bad cell among good ones: its row goes to the quarantine with its place, and nothing else is held up."""

import json
import logging
from datetime import date

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinloom.cli import main
from pinloom.datasets.source import UNREAD, open_source
from pinloom.lake import Lake
from pinloom.settings import get_settings
from tests.platform.datasets.logs import START_MS, WIDE, declare, wide_log, without, write_yaml
from tests.platform.datasets.mapped.test_log import EVER, read

STARS = {"ratings": [{"column": "stars", "action": "hate", "below": 2}]}
LOG = wide_log(6).with_columns(pl.col("uid", "ms", "is_like", "stars").cast(pl.String))


def unread(spec, interval=EVER, share=1.0) -> pl.DataFrame:
    parts = [b["unread"] for b in open_source(spec, share).batches(*interval) if "unread" in b]
    return pl.concat([pl.DataFrame(schema=UNREAD), *parts])


def with_cell(log: pl.DataFrame, row: int, column: str, value: str | None) -> pl.DataFrame:
    return log.with_columns(pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(column).alias(column))


@pytest.mark.parametrize(
    ("column", "value", "rule", "expected"),
    [
        ("ms", "soon", "timestamp.unreadable", "a time in unit 'ms'"),
        ("ms", None, "timestamp.missing", "a time in unit 'ms'"),
        ("ms", "1649548800", "timestamp.unreadable", "a time in unit 'ms'"),
        ("stars", "good", "rating.0.unreadable", "a number"),
        ("is_like", "7", "feedback.like.unreadable", "0 or 1"),
        ("uid", None, "user_id.missing", "text or a number"),
        ("vid", None, "item_id.missing", "text or a number"),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_bad_cell_is_kept_apart_with_its_place_and_the_others_are_read(tmp_path, kind, column, value, rule, expected):
    log = with_cell(LOG, 2, column, value)
    log.write_parquet(tmp_path / "log.parquet") if kind == "parquet" else log.write_csv(tmp_path / "log.csv")
    spec = declare(tmp_path, {"actions": {**WIDE, **STARS, "files": f"log.{kind}"}})
    (found,) = unread(spec).to_dicts()
    assert (found["table"], found["file"], found["row"]) == ("actions", f"log.{kind}", 3)
    assert found["rules"] == [rule]
    assert found["cells"] == [{"rule": rule, "column": column, "value": value, "expected": expected}]
    assert json.loads(found["content"]) == log.select("uid", "vid", "ms", "is_click", "is_like", "stars").with_columns(
        pl.col("is_click") if kind == "parquet" else pl.col("is_click").cast(pl.String)
    ).row(2, named=True)
    assert found["user_id"] == (None if column == "uid" else log["uid"][2])
    LOG.filter(pl.int_range(pl.len()) != 2).write_parquet(tmp_path / "log.parquet")
    others = read(declare(tmp_path, {"actions": {**WIDE, **STARS}})).drop("event_id")
    assert read(spec).drop("event_id").equals(others)


def test_a_row_with_two_bad_cells_is_one_row(tmp_path):
    with_cell(with_cell(LOG, 4, "ms", "x"), 4, "stars", "y").write_parquet(tmp_path / "log.parquet")
    found = unread(declare(tmp_path, {"actions": {**WIDE, **STARS}}))
    assert found["rules"].to_list() == [["rating.0.unreadable", "timestamp.unreadable"]]


def test_a_word_outside_of_the_vocabulary_is_a_bad_cell(tmp_path):
    mapping = without(WIDE, "feedback", "every_row")
    mapping["columns"] = {**WIDE["columns"], "action": "what"}
    wide_log(4).with_columns(what=pl.Series(["click", "zoom", "like", None])).write_parquet(tmp_path / "log.parquet")
    spec = declare(tmp_path, {"actions": mapping})
    found = unread(spec)
    assert found["rules"].to_list() == [["action.unreadable"], ["action.missing"]]
    assert found["cells"][0][0]["expected"] == "one of: impression, click, like, hate"
    assert read(spec)["action"].to_list() == ["click", "like"]


def test_items_and_users_that_cannot_be_read_come_with_every_interval(tmp_path):
    wide_log().write_parquet(tmp_path / "log.parquet")
    (tmp_path / "items.csv").write_text("id,len\nv0,3.5\nv1,long\n,2\n")
    items = {"files": "items.csv", "columns": {"item_id": "id"}, "numeric_features": {"length": "len"}}
    spec = declare(tmp_path, {"actions": WIDE, "items": items})
    assert open_source(spec, 1.0).items()["item_id"].to_list() == ["v0"]
    found = unread(spec, (date(2022, 4, 10), date(2022, 4, 11)))
    assert found["rules"].to_list() == [["features.length.unreadable"], ["item_id.missing"]]
    assert set(found["table"]) == {"items"}


def test_rows_of_other_days_and_of_users_left_out_of_the_sample_are_not_reported(tmp_path):
    LOG.with_columns(is_like=pl.Series(["7"] * 5 + ["0"])).write_parquet(tmp_path / "log.parquet")
    spec = declare(tmp_path, {"actions": WIDE})
    assert unread(spec, (date(2022, 4, 10), date(2022, 4, 11)))["row"].to_list() == [1, 2]
    assert set(unread(spec, share=0.2)["user_id"]) == {"1", "2"}


def test_a_list_with_an_element_that_is_no_number_is_a_bad_cell(tmp_path):
    wide_log().write_parquet(tmp_path / "log.parquet")
    vectors = [["1", "2"], ["x", "3"], None, [None, "4"]]
    pl.DataFrame({"id": ["v0", "v1", "v2", "v3"], "v": vectors}).write_parquet(tmp_path / "items.parquet")
    items = {"files": "items.parquet", "columns": {"item_id": "id"}, "vector_features": {"look": "v"}}
    spec = declare(tmp_path, {"actions": WIDE, "items": items})
    read_items = open_source(spec, 1.0).items()
    assert dict(read_items.select("item_id", "features.look").iter_rows()) == {
        "v0": [1.0, 2.0],
        "v2": None,
        "v3": [None, 4.0],
    }
    (found,) = unread(spec).to_dicts()
    assert (found["row"], found["rules"]) == (2, ["features.look.unreadable"])
    assert found["cells"][0]["expected"] == "a list of numbers"


@given(st.lists(st.tuples(st.integers(0, 19), st.sampled_from(["uid", "ms", "stars", "is_like"])), max_size=12))
@settings(max_examples=25, deadline=None)
def test_rows_in_are_rows_read_and_rows_kept_apart(tmp_path_factory, bad):
    folder = tmp_path_factory.mktemp("log")
    log = wide_log(20).with_columns(pl.col("uid", "ms", "is_like", "stars").cast(pl.String))
    for row, column in bad:
        log = with_cell(log, row, column, None if column == "uid" else "?")
    log.write_parquet(folder / "log.parquet")
    spec = declare(folder, {"actions": {**WIDE, **STARS}})
    rows = read(spec).filter(pl.col("action") == "impression")
    places = {r["row"] for r in unread(spec).iter_rows(named=True)}
    assert places == {row + 1 for row, _ in bad}
    assert rows.height == 20 - len(places)


# -- what the user sees ------------------------------------------------------------------------------


@pytest.fixture
def ingest(tmp_path, monkeypatch, capsys):
    """`pinloom ingest --dataset shop.yaml` of a log: exit code, stdout, stderr; and its lake."""
    monkeypatch.setenv("PINLOOM_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    path = write_yaml(tmp_path, {"actions": {**WIDE, **STARS}})

    def run(log: pl.DataFrame, *params: str) -> tuple[int, str, str]:
        log.write_parquet(tmp_path / "log.parquet")
        code = main(["ingest", "--dataset", str(path), "--json", *(a for p in params for a in ("--param", p))])
        return code, *capsys.readouterr()

    yield run, Lake(f"file://{tmp_path}/home/lake/shop")
    get_settings.cache_clear()


def long_log() -> pl.DataFrame:
    log = wide_log(200).with_columns(pl.int_range(200) * 60_000 + START_MS)
    return (
        log.with_columns(ms=pl.col("literal"))
        .drop("literal")
        .with_columns(pl.col("uid", "ms", "stars").cast(pl.String))
    )


def test_a_few_bad_cells_are_published_around_and_the_user_is_told_which(ingest, caplog):
    run, lake = ingest
    log = with_cell(with_cell(with_cell(long_log(), 9, "ms", "soon"), 20, "stars", "good"), 30, "uid", None)
    with caplog.at_level(logging.WARNING, "pinloom"):
        code, *_ = run(log)
    assert code == 0
    table = lake.require("actions")
    files = [f for f in table.output("quarantine").files if "/quarantine/unread/" in f.uri]
    kept = pl.concat([pl.read_parquet(lake.local_path(f.uri)) for f in files]).sort("row")
    assert kept.select("file", "row").rows() == [("log.parquet", n) for n in (10, 21, 31)]
    assert [f.partition for f in files] == ["2022-04-10", "undated"]
    assert lake.manifest(table.inputs["part"]["uri"]).metrics["quarantined"]["actions"] == 3
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "pinloom" and r.levelno == logging.WARNING]
    assert "3 of " in warning
    assert '{"file": "log.parquet", "row": 10, "column": "ms", "value": "soon", "expected": "a time in unit' in warning


def test_rows_without_a_time_that_can_be_read_do_not_stop_the_ingest_of_a_day(ingest, caplog):
    """They come with every interval: three of them are few of a log, but many of one day."""
    run, lake = ingest
    log = wide_log(40).with_columns(pl.col("uid", "ms", "stars").cast(pl.String))
    for row in (3, 20, 30):
        log = with_cell(log, row, "ms", "soon")
    with caplog.at_level(logging.WARNING, "pinloom"):
        code, _, err = run(log, "start=2022-04-12", "stop=2022-04-13")
    assert code == 0, err
    table = lake.require("actions")
    assert table.output("actions").partitions() == ["2022-04-12"]
    assert [(f.partition, f.rows) for f in table.output("quarantine").files] == [("undated", 3)]
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "pinloom" and r.levelno == logging.WARNING]
    assert "(0.0% without the 3 that have no time)" in warning
    assert "timestamp.unreadable: 3 rows" in warning


def test_mended_rows_leave_the_quarantine(ingest):
    run, lake = ingest
    assert run(with_cell(long_log(), 9, "ms", "soon"))[0] == 0
    assert lake.require("actions").output("quarantine").rows == 1
    assert run(long_log())[0] == 0
    assert lake.require("actions").output("quarantine").rows == 0


def test_too_many_bad_cells_stop_the_run_with_rule_count_and_example(ingest):
    run, lake = ingest
    log = long_log().with_columns(stars=pl.when(pl.int_range(200) < 50).then(pl.lit("good")).otherwise("stars"))
    code, out, err = run(log)
    assert code == 2
    said = json.loads(out)["error"]
    assert "actions: 50 of " in said
    assert "at most 5.0% may (validation.max_quarantined)" in said
    assert (
        'rating.0.unreadable: 50 rows, e.g. {"file": "log.parquet", "row": 1, "column": "stars", "value": "good"'
        in said
    )
    assert "Traceback" not in err
    rejected = lake.require("validate-rejected")
    assert rejected.output("quarantine").rows == 50
    assert lake.latest("actions") is None
