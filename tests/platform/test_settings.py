"""Settings come from the environment; what is wrong there is said with the variable's name and the remedy."""

import json
import os
import re
from pathlib import Path

import pytest

from components.errors import UserError
from pinloom.cli import main
from pinloom.settings import get_settings, refuse_unknown

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in [n for n in os.environ if n.startswith("PINLOOM_")]:
        monkeypatch.delenv(name)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PINLOOM_USERS_SAMPLE", "2", "PINLOOM_USERS_SAMPLE: Input should be less than or equal to 1"),
        ("PINLOOM_TRAINING__WORKERS", "two", "PINLOOM_TRAINING__WORKERS: Input should be a valid integer"),
        ("PINLOOM_TRAINING", '{"workres": 3}', "PINLOOM_TRAINING__WORKRES: Extra inputs are not permitted"),
        ("PINLOOM_AIRFLOW__TRAIN_FLAVOUR", "debug", "airflow"),
        ("PINLOOM_TRAINING__WORKRES", "3", "there is no setting PINLOOM_TRAINING__WORKRES"),
        ("PINLOOM_TRAINNG__WORKERS", "3", "there is no setting PINLOOM_TRAINNG__WORKERS"),
        ("PINLOOM_SERVNG__PORT", "3", "there is no setting PINLOOM_SERVNG__PORT"),
        ("pinloom_user_sample", "3", "there is no setting pinloom_user_sample"),
    ],
)
def test_a_wrong_variable_ends_the_command_with_code_2_and_its_name(monkeypatch, capsys, name, value, said):
    monkeypatch.setenv(name, value)
    assert main(["gc", "--dry-run", "--json"]) == 2
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert said in answer["error"]
    assert answer["remedy"]
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("PINLOOM_TRAINING__WORKRES", "PINLOOM_TRAINING__WORKERS"),
        ("PINLOOM_TRAINNG__WORKERS", "PINLOOM_TRAINING__WORKERS"),
        ("PINLOOM_USER_SAMPLE", "PINLOOM_USERS_SAMPLE"),
        ("PINLOOM_RAY_ADDRESS", "PINLOOM_RAY__ADDRESS"),
    ],
)
def test_the_nearest_name_is_offered(wrong, meant):
    with pytest.raises(UserError) as e:
        refuse_unknown({wrong: "3"})
    assert e.value.remedy.startswith(f"did you mean {meant}")


def test_settings_entries_of_mappings_and_the_services_of_a_namespace_pass(monkeypatch):
    monkeypatch.setenv("PINLOOM_AIRFLOW__TRAIN_FLAVOUR__TRANSACT", "debug")
    for name in ("SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR"):
        monkeypatch.setenv(f"PINLOOM_SERVING_{name}", "tcp://10.0.0.1:8080")
    assert get_settings().airflow.train_flavour == {"transact": "debug"}


@pytest.mark.parametrize("folder", ["docs", "helm", "platform", "benchmarks", "tests", "dags"])
def test_every_variable_that_the_repository_names_exists(folder):
    files = [p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".md", ".yaml", ".tpl", ".sh", ".json"}]
    text = "\n".join(p.read_text() for p in files if p != Path(__file__))
    named = {n for n in re.findall(r"\bPINLOOM_[A-Z0-9_]*[A-Z0-9]\b", text) if f"{n}_{{" not in text}
    refuse_unknown(dict.fromkeys(named, ""))
