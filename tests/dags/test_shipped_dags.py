"""Every shipped DAG by the real scheduler, with the real steps on a small slice of the default data set."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from pinloom.ray_cluster import Head
from tests.airflow_fixtures import Scheduler, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2700)]
PUBLISHED = {
    ("ingest", "ingest"): {"ingest", "validate"},
    ("features", "features"): {"features"},
    ("pretrain_pinfm", "train"): {"train"},
    ("pretrain_pinfm", "evaluate_promote"): {"evaluate", "promote"},
    ("train_pinsage", "graph"): {"graph", "neighbourhoods"},
    ("train_pinsage", "train"): {"train"},
    ("train_pinsage", "evaluate_promote"): {"evaluate", "promote"},
    ("train_pinsage", "embed"): {"graph", "neighbourhoods", "embed", "features", "index", "materialize"},
    ("train_pinsage", "vectors"): {"embed", "features"},
    ("train_transact", "train"): {"train"},
    ("train_transact", "evaluate_promote"): {"evaluate", "promote"},
    ("finetune_pinfm", "train"): {"train"},
    ("finetune_pinfm", "evaluate_promote"): {"evaluate", "promote"},
    ("deploy", "deploy"): {"deploy"},
}
"""(DAG, task) → the steps whose manifests its job must name."""

DAGS = tuple(dict.fromkeys(dag_id for dag_id, _ in PUBLISHED))


@pytest.fixture
def real(ray_cluster: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    """A scheduler of its own: events of the session's probes name features that no lake has."""
    from ray import serve

    with Scheduler(tmp_path_factory.mktemp("shipped"), ray_cluster, command="pinloom") as scheduler:
        scheduler.wait_for_dags(*DAGS)
        scheduler.unpause(*DAGS)
        yield scheduler
    serve.shutdown()


def test_one_trigger_brings_a_log_through_every_dag_to_an_endpoint(real: Scheduler):
    real.trigger("ingest", {"start": "2017-10-02", "stop": "2018-01-02"})
    until(
        lambda: failure(real) or (real.runs("deploy") and real.idle()),
        1800,
        "the endpoint is deployed",
        real.check_alive,
        every_s=3,
    )
    assert not failure(real)
    for (dag_id, task_id), steps in PUBLISHED.items():
        (run_id,) = [run_id for of, run_id in runs(real) if of == dag_id and real.jobs(run_id)]
        result = json.loads(Path(real.xcom(dag_id, run_id, task_id).removeprefix("file://")).read_bytes())
        assert set(result["manifests"]) == steps
        if task_id == "graph":
            graph = json.loads(Path(result["manifests"]["graph"].removeprefix("file://")).read_bytes())
            assert graph["metrics"]["until"] == "2017-10-16", "rankers learn from the three weeks after it"
    assert requests.get(f"http://127.0.0.1:{real.serving_port}/healthz", timeout=30).status_code == 200


def runs(airflow: Scheduler) -> set[tuple[str, str]]:
    return {(dag_id, run["dag_run_id"]) for dag_id in DAGS for run in airflow.runs(dag_id)}


def failure(airflow: Scheduler) -> str:
    """What the first failed task told its user."""
    for dag_id, run_id in runs(airflow):
        for task in airflow.task_states(dag_id, run_id):
            if task.state in ("failed", "up_for_retry"):
                return airflow.task_log(dag_id, run_id, task.task_id, task.try_number)
    return ""
