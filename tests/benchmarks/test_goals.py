"""A missed goal is said by the exit code, and does not keep the other benchmarks from running."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import dcat, embedding, features, tables, training, transact, walks
from benchmarks._report import Figure

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", [dcat, embedding, features, tables, training, transact, walks])
@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_a_benchmark_fails_when_a_goal_does(monkeypatch, module, holds, code):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--quick"])
    monkeypatch.setattr(
        module, "figures", lambda *_: [Figure("a", 1.0, None, "<= 2", True), Figure("b", 3, 1, "", holds)]
    )
    assert module.main() == code


def test_make_bench_runs_all_and_fails_at_the_end(tmp_path):
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name, code in {"_own": 9, "first": 1, "second": 0, "third": 1}.items():
        (folder / f"{name}.py").write_text(f"import sys; print('ran {name}'); sys.exit({code})")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / ".installed").touch()
    command = ["make", "-f", str(ROOT / "Makefile"), "bench"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert [line for line in done.stdout.splitlines() if line.startswith("ran")] == [
        "ran first",
        "ran second",
        "ran third",
    ]
    assert "missed, or the run failed: first third" in done.stdout
    for name in ("first", "third"):
        (folder / f"{name}.py").write_text("")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
