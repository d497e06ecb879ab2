"""The step: days, keys, landed actions, and what a user with a wrong YAML sees."""

import json
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from components.contract import ACTIONS
from components.errors import UserError
from pinloom.cli import main
from pinloom.lake import Lake, Manifest
from pinloom.settings import Settings
from pinloom.steps import ingest
from pinloom.steps.base import run_step
from pinloom.steps.job import open_lake
from tests.platform.datasets.logs import DAY, START_MS, WIDE, declare, wide_log, without, write_yaml


@pytest.fixture
def shop(tmp_path):
    wide_log().write_parquet(tmp_path / "log.parquet")
    return Shop(tmp_path)


class Shop:
    """A small data set with a lake of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.settings = Settings(home=folder / "home")
        self.spec = declare(folder, {"actions": WIDE})
        self.lake: Lake = open_lake(self.settings, self.spec.name)

    def ingest(self, **params) -> Manifest:
        return run_step(ingest.STEP, lake=self.lake, settings=self.settings, spec=self.spec, params=params)

    def rows(self, manifest: Manifest, output: str = "actions") -> pl.DataFrame:
        return pl.concat([pl.read_parquet(self.lake.local_path(u)) for u in manifest.output(output).uris])

    def land(self, day: str, name: str, *events: tuple[str, datetime]) -> None:
        rows = pl.DataFrame(
            [{"event_id": e, "user_id": "9", "item_id": "v1", "action": "like", "timestamp": t} for e, t in events],
            schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
        )
        path = self.lake.local_path(self.lake.path("landed", "realtime", f"day={day}", f"{name}.parquet"))
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(path)


def test_actions_lie_in_partitions_of_their_utc_day(shop):
    manifest = shop.ingest()
    assert manifest.output("actions").partitions() == [f"2022-04-{d}" for d in (10, 11, 12, 13)]
    for entry in manifest.output("actions").files:
        rows = pl.read_parquet(shop.lake.local_path(entry.uri))
        assert dict(rows.schema) == ACTIONS
        assert rows.height == entry.rows
        assert set(rows["timestamp"].dt.date().cast(pl.String)) == {entry.partition}
    assert manifest.metrics["actions_rows"] == 13
    assert set(manifest.outputs) == {"actions", "boards", "requests", "unread", "items", "users"}
    assert manifest.params["start"] == "2022-04-10"
    assert manifest.params["stop"] == "2022-04-14"


def test_the_same_again_is_a_no_op_and_a_changed_file_is_not(shop):
    first = shop.ingest()
    assert shop.ingest().uri == first.uri
    assert shop.ingest(start="2022-04-10", stop="2022-04-14").uri == first.uri
    wide_log(9).write_parquet(shop.folder / "log.parquet")
    assert shop.ingest().key != first.key


def test_days_ingested_alone_are_those_of_the_whole(shop):
    whole = shop.rows(shop.ingest())
    days = [shop.ingest(start=f"2022-04-{d}", stop=f"2022-04-{d + 1}") for d in range(10, 14)]
    assert pl.concat([shop.rows(m) for m in days]).sort("event_id").equals(whole.sort("event_id"))
    items = {m.output("items").files[0].sha256 for m in days}
    assert len(items) == 1


def test_the_sample_of_users_is_a_setting_a_parameter_and_part_of_the_key(shop):
    whole = shop.ingest()
    some = shop.ingest(users_sample=0.2)
    assert some.key != whole.key
    assert set(shop.rows(some)["user_id"]) == {"1", "2"}
    shop.settings = Settings(home=shop.folder / "home", users_sample=0.2)
    assert shop.ingest().uri == some.uri


def test_many_batches_become_few_files(shop, monkeypatch):
    monkeypatch.setattr("pinloom.datasets.mapped.table.BATCH_ROWS", 1)
    assert {len(shop.ingest().output("actions").partition(f"2022-04-{d}")) for d in range(10, 14)} == {1}
    monkeypatch.setattr(ingest, "FLUSH_ROWS", 1)
    again = shop.ingest(start="2022-04-10", stop="2022-04-15")
    assert len(again.output("actions").files) == 8
    assert again.output("actions").rows == 13


def test_boards_without_a_time_stand_in_no_day(tmp_path):
    wide_log().write_parquet(tmp_path / "log.parquet")
    pl.DataFrame({"b": ["x"], "vid": ["v0"]}).write_parquet(tmp_path / "boards.parquet")
    boards = {"files": "boards.parquet", "columns": {"board_id": "b", "item_id": "vid"}}
    shop = Shop(tmp_path)
    shop.spec = declare(tmp_path, {"actions": WIDE, "boards": boards})
    assert shop.ingest().output("boards").partitions() == [""]


# -- what serving landed -----------------------------------------------------------------------------


def test_landed_actions_join_their_day_once(shop):
    at = datetime(2022, 4, 11, 7, tzinfo=UTC)
    shop.land("2022-04-11", "a", ("e1", at), ("e2", at))
    shop.land("2022-04-11", "b", ("e2", at))
    rows = shop.rows(shop.ingest())
    landed = rows.filter(pl.col("user_id") == "9")
    assert sorted(landed["event_id"]) == ["e1", "e2"]
    assert rows.height == 15


def test_what_the_source_has_too_counts_once_and_is_the_sources(tmp_path):
    """200 actions of the log, 60 of them posted before, and one that was only posted."""
    at = [datetime(2022, 4, 10, tzinfo=UTC) + timedelta(minutes=20 * i) for i in range(200)]
    log = pl.DataFrame({"id": [f"e{i}" for i in range(200)], "uid": "9", "vid": "v0", "at": at, "did": "click"})
    log.write_parquet(tmp_path / "log.parquet")
    shop = Shop(tmp_path)
    columns = {"event_id": "id", "user_id": "uid", "item_id": "vid", "action": "did"}
    mapping = {"files": "log.parquet", "columns": columns, "time": {"timestamp": {"column": "at"}}}
    shop.spec = declare(tmp_path, {"actions": mapping})
    for day in (10, 11, 12):
        posted = [(f"e{i}", at[i]) for i in range(0, 180, 3) if at[i].day == day]
        shop.land(f"2022-04-{day}", "a", *posted, *([("alone", at[0])] if day == 10 else []))
    whole = shop.ingest()
    rows = shop.rows(whole)
    assert sorted(rows["event_id"]) == sorted([*log["id"], "alone"])
    assert set(rows.filter(pl.col("event_id") != "alone")["action"]) == {"click"}
    assert whole.metrics["landed_in_source"] == 60
    days = [shop.rows(shop.ingest(start=f"2022-04-{d}", stop=f"2022-04-{d + 1}")) for d in (10, 11, 12)]
    assert pl.concat(days).sort("event_id").equals(rows.sort("event_id"))


def test_an_id_of_another_day_is_another_action(shop):
    first = shop.rows(shop.ingest()).sort("timestamp").row(0, named=True)
    shop.land("2022-04-13", "a", (first["event_id"], datetime(2022, 4, 13, 23, tzinfo=UTC)))
    again = shop.ingest()
    assert again.output("actions").rows == 14
    assert again.metrics["landed_in_source"] == 0


def test_a_landed_file_changes_the_key_of_its_day_only(shop):
    before = {d: shop.ingest(start=f"2022-04-{d}", stop=f"2022-04-{d + 1}").key for d in (10, 11)}
    shop.land("2022-04-11", "a", ("e1", datetime(2022, 4, 11, 7, tzinfo=UTC)))
    after = {d: shop.ingest(start=f"2022-04-{d}", stop=f"2022-04-{d + 1}").key for d in (10, 11)}
    assert after[10] == before[10]
    assert after[11] != before[11]


def test_landed_days_extend_the_default_interval(shop):
    shop.land("2022-05-01", "a", ("e1", datetime(2022, 5, 1, 7, tzinfo=UTC)))
    manifest = shop.ingest()
    assert manifest.params["stop"] == "2022-05-02"
    assert manifest.output("actions").partitions()[-1] == "2022-05-01"


def test_a_landed_action_in_the_wrong_day_is_named(shop):
    shop.land("2022-04-11", "a", ("late", datetime(2022, 4, 12, 7, tzinfo=UTC)))
    with pytest.raises(UserError, match=r"day=2022-04-11/a.parquet holds 1 rows of other days, e.g. event late"):
        shop.ingest()


# -- mistakes ----------------------------------------------------------------------------------------


def test_an_interval_outside_of_the_log_is_refused_with_what_there_is(shop):
    with pytest.raises(
        UserError, match=r"nothing in \[2023-01-01, 2023-01-02\)[\s\S]*covers \[2022-04-10, 2022-04-14\)"
    ):
        shop.ingest(start="2023-01-01", stop="2023-01-02")


def test_an_interval_that_ends_before_it_starts_is_refused(shop):
    with pytest.raises(UserError, match="start 2022-04-12 is not before stop 2022-04-11"):
        shop.ingest(start="2022-04-12", stop="2022-04-11")


def test_a_day_without_rows_inside_of_the_log_is_published_empty(tmp_path):
    log = wide_log(4).with_columns(ms=pl.Series([START_MS, START_MS, START_MS + 3 * DAY, START_MS + 3 * DAY]))
    log.write_parquet(tmp_path / "log.parquet")
    manifest = Shop(tmp_path).ingest(start=date(2022, 4, 11), stop=date(2022, 4, 12))
    assert manifest.output("actions").rows == 0


def test_the_command_line_shows_a_wrong_yaml_without_a_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PINLOOM_HOME", str(tmp_path / "home"))
    wide_log().write_parquet(tmp_path / "log.parquet")
    mapping = {**without(WIDE, "feedback"), "feedback": {"click": "clicked"}}
    path = write_yaml(tmp_path, {"actions": mapping})
    assert main(["step", "ingest", "--dataset", str(path), "--json"]) == 2
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert "source.tables.actions.feedback.click" in said["error"]
    assert "has no column 'clicked' (expected: 0 or 1)" in said["error"]
    assert said["remedy"] == "columns that there are: uid, vid, ms, is_click, is_like, stars"
    assert captured.err.startswith("pinloom: source.tables.actions.feedback.click")
    assert "Traceback" not in captured.err
