import json
import os
import re
import shlex

import pytest

from components.errors import UserError
from pinloom.airflow import submission
from pinloom.datasets import load_dataset
from pinloom.settings import AirflowSettings, Settings
from pinloom.steps.job import open_lake
from tests.platform.datasets.logs import WIDE, write_yaml


def test_ids_are_deterministic_distinct_and_valid_names_everywhere():
    task = ("train_transact", "evaluate_promote", "manual__2017-11-01T00:00:00+00:00", 0, 1)
    ids = {submission.submission_id(*task)}
    for place, other in enumerate(("features", "train", "manual__2017-11-02T00:00:00+00:00", 1, 2)):
        ids.add(submission.submission_id(*task[:place], other, *task[place + 1 :]))
    assert len(ids) == 6
    assert submission.submission_id(*task) in ids
    assert all(re.fullmatch(r"[a-z]([a-z0-9-]{0,45}[a-z0-9])", job_id) for job_id in ids)


def test_the_result_lies_in_the_lake_of_the_data_set():
    settings = Settings(lake="s3://bucket/lake", dataset="shop")
    assert submission.result_uri(settings, "", "x-1") == "s3://bucket/lake/shop/results/x-1.json"


def test_a_yamls_result_lies_where_its_jobs_lake_is_and_gc_looks(tmp_path):
    path = write_yaml(tmp_path, {"actions": WIDE}).rename(tmp_path / "my.yaml")
    settings = Settings(home=tmp_path)
    uri = submission.result_uri(settings, str(path), "x-1")
    assert uri == f"{open_lake(settings, load_dataset(str(path)).name).root}/results/x-1.json"
    assert uri.endswith("/lake/shop/results/x-1.json")


@pytest.mark.parametrize("text", [None, "contract: [", "contract: {}", "- a"])
def test_a_yaml_without_a_name_is_named(tmp_path, text):
    path = tmp_path / "my.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"cannot read contract.name of the data set .*my.yaml"):
        submission.result_uri(Settings(), str(path), "x-1")


def test_the_command_quotes_and_leaves_out_what_is_empty():
    params = {"start": "2017-01-01", "stop": "", "flavour": None, "overrides": '{"epochs": 1}'}
    words = submission.entrypoint("pinloom", ["train"], params, "", ["file:///a b.json"], "file:///r.json")
    assert words == (
        "pinloom step train --param start=2017-01-01 --param 'overrides={\"epochs\": 1}' "
        "--inputs-from 'file:///a b.json' --result file:///r.json"
    )


def test_lists_and_flags_reach_the_step_as_the_settings_have_them():
    params = {"ablation": False, "ablations": ["no PinFM"], "max_requests": 2000, "overrides": {"epochs": 1}}
    command = submission.entrypoint("pinloom", ["evaluate"], params, "", [], "file:///r.json")
    given = dict(word.split("=", 1) for word in shlex.split(command) if "=" in word)
    assert {name: json.loads(value) for name, value in given.items()} == params


@pytest.fixture
def bare(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PINLOOM_")]:
        monkeypatch.delenv(name)


def test_jobs_get_airflows_settings_but_no_secret(bare, monkeypatch, tmp_path):
    for name, value in {
        "PINLOOM_HOME": "here",
        "PINLOOM_USERS_SAMPLE": "0.5",
        "PINLOOM_MLFLOW_URI": "https://mlflow:5000",
        "PINLOOM_RAY__TOKEN": "t",
        "PINLOOM_SERVING__API_KEY": "k",
        "PINLOOM_SERVING__REQUIRE_API_KEY": "true",
        "PINLOOM_RAY__ADDRESS": "ray://here",
        "PINLOOM_RAY__JOBS_URL": "http://here",
        "PINLOOM_RAY__SCHEDULE_TIMEOUT_S": "600",
        "HOME_TOKEN": "h",
    }.items():
        monkeypatch.setenv(name, value)
    assert submission.environment(Settings()) == {
        "PINLOOM_HOME": str(tmp_path / "here"),
        "PINLOOM_USERS_SAMPLE": "0.5",
        "PINLOOM_MLFLOW_URI": "https://mlflow:5000",
        "PINLOOM_RAY__SCHEDULE_TIMEOUT_S": "600",
        "PINLOOM_SERVING__REQUIRE_API_KEY": "true",
    }


def test_a_url_with_a_password_is_neither_shown_nor_silently_dropped(bare, monkeypatch):
    monkeypatch.setenv("PINLOOM_MLFLOW_URI", "postgresql://user:word@host")
    with pytest.raises(UserError, match="PINLOOM_MLFLOW_URI has a password") as e:
        submission.environment(Settings())
    assert "environment of the Ray cluster" in e.value.remedy
    assert "word@host" not in str(e.value)
    in_pods = Settings(airflow=AirflowSettings(backend="kuberay"))
    assert "PINLOOM_MLFLOW_URI" not in submission.environment(in_pods)
