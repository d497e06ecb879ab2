"""A log in Parquet or CSV as contract tables."""

import gzip
from datetime import UTC, date, datetime

import polars as pl
import pytest

from components.contract import ACTIONS
from pinloom.datasets.source import open_source
from tests.platform.datasets.logs import CONTRACT, DAY, START_MS, WIDE, declare, wide_log, without

EVER = (date(2000, 1, 1), date(2100, 1, 1))


def read(spec, table="actions", share=1.0, interval=EVER) -> pl.DataFrame:
    parts = [b[table] for b in open_source(spec, share).batches(*interval) if table in b]
    return pl.concat(parts).sort("timestamp", maintain_order=True)


def test_wide_feedback_becomes_one_row_per_action(tmp_path):
    log = wide_log()
    log.write_parquet(tmp_path / "log.parquet")
    rows = read(declare(tmp_path, {"actions": WIDE}))
    assert dict(rows.schema) == ACTIONS
    assert dict(rows["action"].value_counts().iter_rows()) == {"impression": 8, "click": 4, "like": 1}
    liked = rows.filter(pl.col("action") == "like").row(0, named=True)
    assert (liked["user_id"], liked["item_id"]) == ("0", "v3")
    assert liked["timestamp"] == datetime(2022, 4, 11, 12, tzinfo=UTC)
    assert rows["event_id"].n_unique() == rows.height


def test_ratings_become_actions_by_threshold(tmp_path):
    wide_log(10).write_parquet(tmp_path / "log.parquet")
    ratings = [
        {"column": "stars", "action": "like", "at_least": 4},
        {"column": "stars", "action": "click", "at_least": 2, "below": 4},
        {"column": "stars", "action": "hate", "below": 2},
    ]
    rows = read(declare(tmp_path, {"actions": {**without(WIDE, "feedback", "every_row"), "ratings": ratings}}))
    assert dict(rows["action"].value_counts().iter_rows()) == {"like": 4, "click": 4, "hate": 2}


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "parquet"])
def test_every_kind_of_file_reads_alike(tmp_path, ending):
    log = wide_log()
    text = log.write_csv(separator="\t" if "tsv" in ending else ",")
    path = tmp_path / f"log.{ending}"
    if ending == "parquet":
        log.write_parquet(path)
    else:
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    rows = read(declare(tmp_path, {"actions": {**WIDE, "files": path.name}}))
    log.write_parquet(tmp_path / "log.parquet")
    same = read(declare(tmp_path, {"actions": WIDE}))
    assert rows.drop("event_id").equals(same.drop("event_id"))


def test_a_csv_without_header_and_with_another_separator(tmp_path):
    (tmp_path / "u.csv").write_text("7|i1|4.5|1650000000\n8|i2|1|1650000060\n")
    mapping = {
        "files": "u.csv",
        "separator": "|",
        "header": ["user", "item", "stars", "at"],
        "columns": {"user_id": "user", "item_id": "item", "value": "stars"},
        "time": {"timestamp": {"column": "at", "unit": "s"}},
        "constants": {"action": "click", "surface": "import"},
    }
    rows = read(declare(tmp_path, {"actions": mapping}))
    assert rows.select("user_id", "item_id", "value", "action", "surface").rows() == [
        ("7", "i1", 4.5, "click", "import"),
        ("8", "i2", 1.0, "click", "import"),
    ]


def test_action_values_are_renamed_and_null_leaves_rows_out(tmp_path):
    log = wide_log(4).with_columns(what=pl.Series([1, 2, 1, 3]))
    log.write_parquet(tmp_path / "log.parquet")
    mapping = without(WIDE, "feedback", "every_row")
    mapping["columns"] = {**WIDE["columns"], "action": "what"}
    mapping["action_values"] = {1: "click", 2: "like", 3: None}
    rows = read(declare(tmp_path, {"actions": mapping}))
    assert rows["action"].to_list() == ["click", "like", "click"]


def test_several_mappings_add_their_rows(tmp_path):
    wide_log(3).write_parquet(tmp_path / "log.parquet")
    wide_log(2).write_csv(tmp_path / "likes.csv")
    likes = {**without(WIDE, "feedback", "every_row"), "files": "likes.csv", "constants": {"action": "like"}}
    rows = read(declare(tmp_path, {"actions": [WIDE, likes]}))
    assert dict(rows["action"].value_counts().iter_rows()) == {"impression": 3, "click": 1, "like": 2}
    assert rows["event_id"].n_unique() == 6


def test_event_ids_do_not_depend_on_interval_root_or_sample(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        wide_log().write_parquet(tmp_path / name / "log.parquet")
    whole = read(declare(tmp_path / "a", {"actions": WIDE}))
    days = [(date(2022, 4, d), date(2022, 4, d + 1)) for d in range(10, 14)]
    spec = declare(tmp_path / "b", {"actions": WIDE})
    by_day = pl.concat([read(spec, interval=day) for day in days])
    assert by_day.sort("event_id").equals(whole.sort("event_id"))
    some = read(spec, share=0.2)
    assert 0 < some.height < whole.height
    assert some.join(whole, on=whole.columns, how="anti", nulls_equal=True).height == 0


def test_an_own_event_id_is_kept_apart_per_action(tmp_path):
    wide_log(4).with_columns(id=pl.Series(list("abcd"))).write_parquet(tmp_path / "log.parquet")
    mapping = {**WIDE, "columns": {**WIDE["columns"], "event_id": "id"}}
    rows = read(declare(tmp_path, {"actions": mapping}))
    assert rows["event_id"].n_unique() == rows.height
    assert set(rows["event_id"].str.head(1)) == set("abcd")


def test_whole_float_ids_lose_their_point(tmp_path):
    wide_log(4).with_columns(pl.col("uid").cast(pl.Float64)).write_parquet(tmp_path / "log.parquet")
    assert set(read(declare(tmp_path, {"actions": WIDE}))["user_id"]) == {"0", "1", "2"}


def test_interval_covers_the_files_by_utc_day(tmp_path):
    wide_log().write_parquet(tmp_path / "log.parquet")
    assert open_source(declare(tmp_path, {"actions": WIDE}), 1.0).interval() == (date(2022, 4, 10), date(2022, 4, 14))


def test_unmapped_items_are_those_of_the_log_with_inferred_age(tmp_path):
    wide_log().write_parquet(tmp_path / "log.parquet")
    splits = {"burn_in": "2022-04-11", "validation": "2022-04-12", "test": "2022-04-13", "end": "2022-04-14"}
    spec = declare(tmp_path, {"actions": WIDE}, contract={**CONTRACT, "splits": splits})
    items = open_source(spec, 1.0).items()
    assert items["item_id"].to_list() == [f"v{i}" for i in range(5)]
    assert items["created_at_inferred"].to_list() == [False, False, True, True, True]
    assert items["created_at"][2] == datetime(2022, 4, 11, tzinfo=UTC)


def test_items_users_boards_and_requests_are_mapped(tmp_path):
    wide_log().write_parquet(tmp_path / "log.parquet")
    (tmp_path / "items.csv").write_text("id,made,kind,len\nv0,2022-04-01,a,3.5\nv1,2022-04-02T06:00:00+02:00,,\n")
    (tmp_path / "users.csv").write_text("id,land\n1,NL\n2,DE\n")
    boards = pl.DataFrame({"list": ["l1"], "vid": ["v0"], "ms": [START_MS + DAY]})
    boards.write_parquet(tmp_path / "boards.parquet")
    sets = pl.DataFrame({"r": [1], "u": [2], "ms": [START_MS], "all": [["v0", "v1"]]})
    sets.write_parquet(tmp_path / "sets.parquet")
    time = {"timestamp": {"column": "ms", "unit": "ms"}}
    tables = {
        "actions": WIDE,
        "items": {
            "files": "items.csv",
            "columns": {"item_id": "id", "category": "kind"},
            "time": {"created_at": {"column": "made"}},
            "numeric_features": {"length": "len"},
            "categorical_features": {"kind": "kind"},
        },
        "users": {"files": "users.csv", "columns": {"user_id": "id"}, "categorical_features": {"country": "land"}},
        "boards": {"files": "boards.parquet", "columns": {"board_id": "list", "item_id": "vid"}, "time": time},
        "requests": {
            "files": "sets.parquet",
            "columns": {"request_id": "r", "user_id": "u", "item_ids": "all"},
            "time": time,
        },
    }
    spec = declare(tmp_path, tables, features={"numeric": ["length"], "categorical": ["kind"]})
    items = open_source(spec, 1.0).items()
    assert items["created_at"].to_list() == [datetime(2022, 4, 1, tzinfo=UTC), datetime(2022, 4, 2, 4, tzinfo=UTC)]
    assert items.select("features.length", "features.kind").rows() == [(3.5, "a"), (None, None)]
    assert open_source(spec, 1.0).users().rows() == [("1", "NL"), ("2", "DE")]
    assert read(spec, "boards").row(0)[:2] == ("l1", "v0")
    assert read(spec, "requests").row(0)[3] == ["v0", "v1"]


def test_the_fingerprint_follows_the_files(tmp_path):
    wide_log().write_parquet(tmp_path / "log.parquet")
    spec = declare(tmp_path, {"actions": {**WIDE, "files": "*.parquet"}})
    before = open_source(spec, 1.0).fingerprint()
    assert open_source(spec, 1.0).fingerprint() == before
    wide_log().write_parquet(tmp_path / "more.parquet")
    assert open_source(spec, 1.0).fingerprint() != before
