import os
import re

from pinloom.airflow import submission
from pinloom.settings import Settings


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
    assert submission.result_uri(settings, "/logs/my.yaml", "x-1") == "s3://bucket/lake/my/results/x-1.json"


def test_the_command_quotes_and_leaves_out_what_is_empty():
    params = {"start": "2017-01-01", "stop": "", "flavour": None, "overrides": '{"epochs": 1}'}
    words = submission.entrypoint("pinloom", ["train"], params, "", ["file:///a b.json"], "file:///r.json")
    assert words == (
        "pinloom step train --param start=2017-01-01 --param 'overrides={\"epochs\": 1}' "
        "--inputs-from 'file:///a b.json' --result file:///r.json"
    )


def test_jobs_get_airflows_settings_but_no_secret(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PINLOOM_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "PINLOOM_HOME": "here",
        "PINLOOM_USERS_SAMPLE": "0.5",
        "PINLOOM_MLFLOW_URI": "https://mlflow:5000",
        "PINLOOM_RAY__TOKEN": "t",
        "PINLOOM_SERVING__API_KEY": "k",
        "PINLOOM_SERVING__REQUIRE_API_KEY": "true",
        "PINLOOM_ONLINE__REDIS_URL": "redis://user:word@host",
        "HOME_TOKEN": "h",
    }.items():
        monkeypatch.setenv(name, value)
    assert submission.environment(Settings()) == {
        "PINLOOM_HOME": str(tmp_path / "here"),
        "PINLOOM_USERS_SAMPLE": "0.5",
        "PINLOOM_MLFLOW_URI": "https://mlflow:5000",
        "PINLOOM_SERVING__REQUIRE_API_KEY": "true",
    }
