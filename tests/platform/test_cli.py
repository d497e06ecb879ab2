"""What the user sees: text or one JSON object, and of mistakes the problem and its remedy, never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pinloom.cli import build_parser, main
from pinloom.settings import get_settings

YAML = """
contract:
  name: tiny
  actions: [{name: save, role: positive}, {name: view, role: impression}]
  ties: ordered
  splits: {burn_in: 2026-03-02, validation: 2026-04-01, test: 2026-04-08, end: 2026-05-01}
  buckets: 2
source:
  root: .
  tables:
    actions:
      files: actions.csv
      columns: {user_id: who, item_id: what, action: did}
      time: {timestamp: {column: at}}
    items:
      files: items.csv
      columns: {item_id: id}
validation: {max_quarantined: 0.5}
"""


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    """The YAML of a log of 20 actions on items 0 to 3; settings point into a home of its own."""
    monkeypatch.setenv("PINLOOM_HOME", str(tmp_path / "home"))
    for name in ("PINLOOM_LAKE", "PINLOOM_DATASET", "PINLOOM_USERS_SAMPLE"):
        monkeypatch.delenv(name, raising=False)
    get_settings.cache_clear()
    rows = [f"u{n % 3},{n % 4},{('save', 'view')[n % 2]},2026-03-{1 + n // 10:02d}T00:{n:02d}:00Z" for n in range(20)]
    (tmp_path / "actions.csv").write_text("\n".join(["who,what,did,at", *rows]))
    _items(tmp_path, "0123")
    (tmp_path / "dataset.yaml").write_text(YAML)
    yield tmp_path / "dataset.yaml"
    get_settings.cache_clear()


def _items(folder: Path, ids: str) -> None:
    (folder / "items.csv").write_text("\n".join(["id", *ids]))


def _json(capsys, *argv: object) -> tuple[int, dict]:
    """Exit code and the one object on standard output."""
    code = main([*map(str, argv), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_log_is_brought_in_by_one_command_and_again_at_no_cost(log, capsys):
    code, first = _json(capsys, "ingest", "--dataset", log)
    assert code == 0
    assert list(first["manifests"]) == ["ingest", "validate"]
    manifest = json.loads(Path(first["manifests"]["validate"].removeprefix("file://")).read_text())
    assert manifest["metrics"]["rows"]["actions"] == 20
    assert _json(capsys, "ingest", "--dataset", log)[1]["manifests"] == first["manifests"]
    assert (
        _json(capsys, "step", "validate", "--dataset", log)[1]["manifests"]["validate"]
        == first["manifests"]["validate"]
    )
    code, swept = _json(capsys, "gc", "--dry-run", "--dataset", log)
    assert (code, swept["would_remove"]) == (0, 0)
    assert main(["ingest", "--dataset", str(log)]) == 0
    assert "manifests: {" in capsys.readouterr().out


def test_a_full_quarantine_says_how_many_why_an_example_and_where_the_report_is(log, capsys):
    _items(log.parent, "789")
    assert main(["step", "ingest", "--dataset", str(log)]) == 0
    capsys.readouterr()
    code = main(["step", "validate", "--dataset", str(log), "--json"])
    out, err = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in err
    assert "pinloom: validation stopped, nothing was published" in err
    assert "actions: 20 of 20 rows (100.0%) fail row-level rules, at most 50.0% may (validation.max_quarantined)" in err
    assert 'item_id.unknown: 20 rows, e.g. {"event_id":' in err
    assert "remedy: mend the source or its mapping, or the thresholds" in err
    report = next(line for line in err.splitlines() if line.startswith("report: ")).removeprefix("report: file://")
    assert "20 of 20 rows" in Path(report).read_text()
    said = json.loads(out)
    assert said["error"] in err
    assert str(log) in said["remedy"]


def test_a_wrong_yaml_is_answered_with_each_field(log, capsys):
    log.write_text(YAML.replace("ties: ordered", "ties: maybe").replace("max_quarantined: 0.5", "max_quarantined: 7"))
    code, said = _json(capsys, "ingest", "--dataset", log)
    assert code == 2
    assert "contract.ties: Input should be 'ordered' or 'unordered'" in said["error"]
    assert "validation.max_quarantined: Input should be less than or equal to 1" in said["error"]
    assert "template.yaml" in said["remedy"]


@pytest.mark.parametrize(
    ("argv", "error", "remedy"),
    [
        (("step", "validate"), "nothing is published as 'landed'", "run the step that publishes it first"),
        (
            ("step", "validate", "--input", "ingest=file:///gone.json"),
            "file:///gone.json does not exist",
            "check the URI",
        ),
        (("step", "validate", "--input", "ingest"), "--input ingest has no '='", "--input name=value"),
        (("step", "validate", "--input", "log=file:///x"), "takes the input log", "inputs they take: ingest"),
        (
            ("step", "validate", "--inputs-from", "file:///gone.json"),
            "file:///gone.json does not exist",
            "check the URI",
        ),
        (("step", "ingest", "--param", "begin=1"), "takes the parameter begin", "start"),
        (
            ("step", "ingest", "--param", "start=soon"),
            "start: Input should be a valid date",
            "parameters it takes: start",
        ),
        (("step", "dream"), "there is no step 'dream'", "one of: ingest, validate"),
        (("gc", "--dataset", "nowhere.yaml"), "no data set 'nowhere.yaml'", "give the path of a YAML"),
    ],
)
def test_a_mistake_is_answered_with_what_is_wrong_and_the_remedy(log, capsys, argv, error, remedy):
    dataset = () if "--dataset" in argv else ("--dataset", log)
    code, said = _json(capsys, *argv, *dataset)
    assert code == 2
    assert error in said["error"]
    assert remedy in said["remedy"]


def test_the_steps_are_listed_in_order(capsys):
    code, said = _json(capsys, "steps")
    assert code == 0
    assert {"ingest", "validate", "features", "train", "promote", "deploy"} <= set(said["steps"])


def test_every_command_explains_itself_and_knows_json():
    parser = build_parser()
    (commands,) = (a for a in parser._actions if a.dest == "command")
    assert {"step", "ingest", "steps", "gc"} <= set(commands.choices)
    for name, sub in commands.choices.items():
        options = {o for a in sub._actions for o in a.option_strings}
        assert {"--json", "--help"} <= options, name
        assert sub.description, name
        assert all(a.help for a in sub._actions if a.option_strings), name


def test_a_mistake_ends_the_process_with_code_2_and_no_traceback(log):
    command = [sys.executable, "-m", "pinloom.cli", "step", "validate", "--dataset", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "error"})
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("pinloom: nothing is published as 'landed'")
    assert "remedy: run the step" in done.stderr
