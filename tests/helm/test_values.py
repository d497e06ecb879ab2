"""values.yaml, its schema and its table say the same."""

import json
import subprocess
from datetime import date

import pytest
import yaml

from helm import values as module
from tests.helm.chart import CASES, CHART, RELEASE, render
from tests.helm.tool import tool
from tests.kind.conftest import ANOTHER_SETTING
from tests.kind.conftest import values as cluster_values


@pytest.fixture(scope="module")
def text() -> str:
    return (CHART / "values.yaml").read_text()


def test_schema_and_table_are_those_of_the_comments(text):
    values, said = yaml.safe_load(text), module.notes(text)
    remedy = "run: python helm/values.py"
    assert json.loads((CHART / "values.schema.json").read_text()) == module.schema(values, said), remedy
    assert module.TABLE.read_text() == module.table(values, said), remedy


def test_every_value_is_described(text):
    values, said = yaml.safe_load(text), module.notes(text)
    assert [".".join(path) for path, _ in module.leaves(values, (), said) if path not in said] == []


def test_the_schema_is_closed_everywhere_but_where_kubernetes_decides(text):
    def open_objects(schema, path=()):
        if schema.get("type") == "object":
            if "properties" not in schema and "additionalProperties" not in schema:
                yield ".".join(path), schema.get("description", "")
            for name, inner in schema.get("properties", {}).items():
                yield from open_objects(inner, (*path, name))

    schema = json.loads((CHART / "values.schema.json").read_text())
    wide = {path: text for path, text in open_objects(schema) if path != "global"}
    assert wide
    assert all("(free" in text for text in wide.values())


@pytest.mark.parametrize("case", CASES)
def test_helm_lint(case):
    files = ["--values", str(CASES[case])] if CASES[case] else []
    done = subprocess.run(
        [tool("helm"), "lint", "--strict", str(CHART), "--set", "requireKubeRay=false", *files],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_takes_what_the_cluster_test_sets(tmp_path):
    """Where there is no cluster nothing else would tell."""
    path = tmp_path / "values.json"
    path.write_text(json.dumps(cluster_values(date(2017, 1, 1), date(2017, 12, 31))))
    found = render(CASES["small"], arguments=["--values", str(path), *ANOTHER_SETTING])
    settings = found.one("ConfigMap", f"{RELEASE}-pinloom-settings")["data"]
    assert settings["PINLOOM_SERVING__TARGET_ONGOING_REQUESTS"] == "6"
    assert settings["PINLOOM_AIRFLOW__LOG_END"] == "2017-12-31"
