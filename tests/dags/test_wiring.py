"""The DAGs, read with Airflow alone: what triggers what, and which steps each task runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
READER = Path(__file__).with_name("read_dags.py")
HEAVY = (
    "torch",
    "ray",
    "feast",
    "great_expectations",
    "mlflow",
    "polars",
    "numpy",
    "pandas",
    "pyarrow",
    "sklearn",
    "components",
)


def read(python: str, home: Path, *refused: str, **settings: str) -> dict:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PINLOOM_", "PYTHONPATH"))}
    done = subprocess.run(
        [python, str(READER), str(ROOT / "dags"), *refused],
        env=env | settings | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def dags(tmp_path_factory) -> dict:
    return read(sys.executable, tmp_path_factory.mktemp("home"), *HEAVY)


def test_the_dags_need_nothing_heavy(dags):
    trained = {"train_pinsage", "pretrain_pinfm", "finetune_pinfm", "train_transact"}
    assert set(dags) == {"ingest", "features", *trained, "deploy"}


def test_assets_chain_the_dags(dags):
    triggers = {name: dag["triggered_by"] for name, dag in dags.items()}
    makes = {name: [asset for task in dag["tasks"].values() for asset in task["makes"]] for name, dag in dags.items()}
    assert triggers["ingest"] == []
    assert makes["ingest"] == triggers["features"] == ["actions"]
    assert makes["features"] == triggers["train_pinsage"] == triggers["pretrain_pinfm"] == ["features"]
    assert makes["pretrain_pinfm"] == ["model/pinfm"]
    assert makes["train_pinsage"] == ["model/pinsage", "vectors"]
    assert triggers["train_transact"] == ["vectors"]
    assert triggers["finetune_pinfm"] == ["model/pinfm", "vectors"]
    assert makes["finetune_pinfm"] == ["model/pinfm_ranker"]
    assert makes["train_transact"] == triggers["deploy"] == ["model/transact"]
    assert makes["deploy"] == ["serving"]


def test_the_ranker_that_the_setting_names_is_deployed_and_without_a_foundation_nothing_tunes_one(tmp_path):
    read_with = {"PINLOOM_SERVING__RECIPE": "pinfm_ranker", "PINLOOM_AIRFLOW__FOUNDATION": ""}
    dags = read(sys.executable, tmp_path, *HEAVY, **read_with)
    assert dags["deploy"]["triggered_by"] == ["model/pinfm_ranker"]
    assert dags["finetune_pinfm"]["triggered_by"] == dags["pretrain_pinfm"]["triggered_by"] == []


def test_every_step_is_run_by_a_task_and_exists(dags):
    from pinloom.steps.base import MODULES

    steps = [step for dag in dags.values() for task in dag["tasks"].values() for step in task["steps"]]
    assert set(steps) == set(MODULES)


def test_what_assets_trigger_runs_one_at_a_time_behind_its_gate(dags):
    for name in ("features", "train_pinsage", "pretrain_pinfm", "finetune_pinfm", "train_transact"):
        assert dags[name]["max_active_runs"] == 1
        first = [task_id for task_id, task in dags[name]["tasks"].items() if not task["after"]]
        assert first == ["news"]


def test_behind_a_gate_the_data_set_is_the_runs_own_else_that_of_the_news(dags):
    from jinja2 import Environment

    for name in ("features", "train_pinsage", "pretrain_pinfm", "finetune_pinfm", "train_transact"):
        for task_id, task in dags[name]["tasks"].items():
            if task_id == "news":
                continue
            template = Environment().from_string(task["dataset"])
            for own, expected in (("", "shop"), ("mine", "mine")):
                ti = SimpleNamespace(xcom_pull=lambda task_id: {"news": {"dataset": "shop"}}[task_id])
                assert template.render(params=SimpleNamespace(dataset=own), ti=ti) == expected, (name, task_id)


def test_switching_a_dag_on_does_not_make_up_for_the_past(dags):
    assert not any(dag["catchup"] for dag in dags.values())


@pytest.mark.cluster
def test_the_dags_are_read_in_an_environment_with_airflow_alone(dags, tmp_path_factory):
    """The thin image, in small: only what the extra `airflow` brings."""
    venv = tmp_path_factory.mktemp("thin") / "venv"
    uv = str(Path(sys.executable).with_name("uv"))
    python = str(venv / "bin" / "python")
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(venv)],
        [uv, "pip", "install", "--quiet", "--python", python, "-c", "constraints.txt", ".[airflow]"],
    ):
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    installed = subprocess.run([uv, "pip", "list", "--python", python], env=env, capture_output=True, text=True).stdout
    assert not {line.split()[0].lower() for line in installed.splitlines()[2:]} & {*HEAVY[:8], "scikit-learn"}
    assert read(python, venv.parent) == dags
