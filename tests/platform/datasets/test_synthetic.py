"""`pinloom generate`: files and the YAML that ingests them."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from components.errors import UserError
from pinloom.cli import main
from pinloom.datasets import load_dataset
from pinloom.datasets.source import open_source
from pinloom.datasets.synthetic import generate


def test_a_generated_log_reads_back_as_it_was_written(tmp_path):
    said = generate(20_000, tmp_path / "log", seed=3)
    source = open_source(load_dataset(said["dataset"]), 1.0)
    rows = pl.concat([b["actions"] for b in source.batches(*source.interval()) if "actions" in b])
    written = pl.read_parquet(tmp_path / "log" / "actions" / "*.parquet")
    assert rows.height == written.height == said["actions"]
    assert rows["event_id"].is_unique().all()
    mine = written.select("user", "item", "action", "request", "session", "surface", "time_ms").sort(pl.all())
    read = rows.select(
        "user_id", "item_id", "action", "request_id", "session_id", "surface", pl.col("timestamp").dt.epoch("ms")
    )
    assert read.sort(pl.all()).rows() == mine.rows()
    assert source.items().height == said["items"]
    assert source.users().height == said["users"]


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in ("a", "b", "c"):
        generate(5_000, tmp_path / name, seed=1 if name != "c" else 2)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.parquet")]
    assert len(files) == 4
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    log = Path("actions/00000.parquet")
    assert (tmp_path / "a" / log).read_bytes() != (tmp_path / "c" / log).read_bytes()


def test_a_board_holds_items_of_one_topic(tmp_path):
    generate(20_000, tmp_path / "log")
    topics = pl.read_parquet(tmp_path / "log" / "items.parquet").select("item", "topic")
    boards = pl.read_parquet(tmp_path / "log" / "boards" / "*.parquet").join(topics, on="item")
    assert boards.height > 300
    assert (boards.group_by("board").agg(pl.col("topic").n_unique())["topic"] == 1).all()


@pytest.mark.parametrize("actions", [999, 100_000_001])
def test_sizes_out_of_range_are_refused(tmp_path, actions):
    with pytest.raises(UserError, match="choose from 1,000 to 100,000,000"):
        generate(actions, tmp_path / "log")


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is not empty"):
        generate(1_000, tmp_path)


def test_the_command_prints_where_the_yaml_is(tmp_path, capsys):
    assert main(["generate", "--actions", "1000", "--out", str(tmp_path / "log"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert load_dataset(said["dataset"]).name == "log"


@pytest.mark.scale
def test_memory_does_not_grow_with_the_log(tmp_path):
    """Peak memory of 12 buckets is that of 3: each run in a process of its own."""
    code = (
        "import resource, sys; from pathlib import Path; from pinloom.datasets.synthetic import generate;"
        "generate(int(sys.argv[1]), Path(sys.argv[2])); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(n), str(tmp_path / str(n))], capture_output=True, check=True
            ).stdout
        )
        for n in (3_750_000, 15_000_000)
    ]
    assert peaks[1] < 1.2 * peaks[0]
