"""One installation for all tests of the folder, which run in the order of the file and go on from one another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pinloom.datasets import load_dataset
from pinloom.datasets.source import open_source
from pinloom.demo.__main__ import EVALUATION, OVERRIDES
from tests.helm.chart import CHART
from tests.kind.airflow_api import Airflow
from tests.kind.cluster import (
    Cluster,
    cluster,
    fresh_namespace,
    images,
    install_kuberay,
    missing,
    remove_namespace,
    say,
    wait_until,
)

RELEASE = "pinloom"
READY_S = 1500.0
DATASET, SAMPLE = "completejourney", 0.05
SERVE = f"{RELEASE}-serve-svc"
CHAIN = ("ingest", "features", "train_transact", "deploy")
"""From the log to the endpoint, on content vectors: learned ones are four jobs more of the same kind."""

ANOTHER_SETTING = ("--set-json", "serving.targetOngoingRequests=6.0")
"""Of an upgrade. `--set` would make a string of 6.0, which the schema refuses."""


def values(first: date, end: date) -> dict[str, Any]:
    """What makes the demo's data fit into a small cluster, and its clocks into a test."""
    settings = {
        "PINLOOM_USERS_SAMPLE": str(SAMPLE),
        "PINLOOM_AIRFLOW__EMBEDDINGS": "",
        "PINLOOM_AIRFLOW__LOG_START": str(first),
        "PINLOOM_AIRFLOW__LOG_END": str(end),
        "PINLOOM_AIRFLOW__TRAIN_OVERRIDES": json.dumps(OVERRIDES),
        "PINLOOM_AIRFLOW__EVALUATION": json.dumps(EVALUATION),
        "PINLOOM_AIRFLOW__SETTLE_INTERVAL_S": "5",
        "PINLOOM_AIRFLOW__RETRY_DELAY_S": "5",
    }
    config = {"AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120"}
    return {"dataset": DATASET, "settings": settings, "airflow": {"config": config}}


@dataclass
class Installation:
    """The release, and what the tests learn of it on their way."""

    cluster: Cluster
    values: Path
    images: list[str]
    interval: tuple[date, date]
    known: dict[str, Any] = field(default_factory=dict)

    def upgrade(self, *args: str) -> None:
        common = ["--values", str(CHART / "values-small.yaml"), "--values", str(self.values), *self.images]
        self.cluster.helm("upgrade", "--install", RELEASE, str(CHART), *common, *args, "--timeout", "20m")

    def ready(self, component: str) -> bool:
        pods = self.cluster.get("pods", selector=f"app.kubernetes.io/component={component}")
        running = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
        return bool(running) and all(
            any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
            for p in running
        )


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Iterator[Installation]:
    if why := missing():
        say(why)
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("kind")
    interval = open_source(load_dataset(DATASET), SAMPLE).interval()
    with cluster(folder) as on:
        (folder / "values.json").write_text(json.dumps(values(*interval)))
        fresh_namespace(on)
        try:
            yield _install(on, folder / "values.json", interval)
        finally:
            if not on.mine:
                remove_namespace(on)


def _install(on: Cluster, values: Path, interval: tuple[date, date]) -> Installation:
    try:
        install_kuberay(on)
        installation = Installation(on, values, images(on), interval)
        installation.upgrade()
    except AssertionError:
        say(on.diagnose())
        raise
    return installation


@pytest.fixture
def served(installed: Installation) -> None:
    """Skips what needs a served model, when the chain that brings one has failed: hours of waiting tell nothing new."""
    if not installed.known.get("served"):
        pytest.skip("no model is served: see the failure of the chain")


@pytest.fixture(scope="session")
def airflow(installed: Installation) -> Iterator[Airflow]:
    """Its API, when all its DAGs are read and unpaused."""
    wait_until(lambda: installed.ready("airflow-api-server"), READY_S, "Airflow's API server is ready")
    password = installed.cluster.secret(RELEASE, "airflow-password")
    with installed.cluster.forward(f"{RELEASE}-airflow", 8080) as url:
        api = Airflow(url, password)
        wait_until(lambda: set(CHAIN) <= dags(api), READY_S, f"DAGs {CHAIN}")
        for dag in CHAIN:
            api.unpause(dag)
        yield api


def dags(api: Airflow) -> set[str]:
    """
    Raises:
        AssertionError: a DAG file cannot be read.
    """
    errors = api.import_errors()
    assert not errors, errors
    return api.dag_ids()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    installation = item.funcargs.get("installed") if hasattr(item, "funcargs") else None
    if report.failed and installation is not None:
        report.sections.append(("cluster", installation.cluster.diagnose()))
    return report
