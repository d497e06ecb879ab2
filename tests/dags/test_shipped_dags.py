"""Every shipped DAG by the real scheduler, with the real steps on a small slice of the default data set."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.airflow_fixtures import Scheduler, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1300)]
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
def real(airflow: Scheduler) -> Iterator[Scheduler]:
    """Jobs are `pinloom` itself while this lasts; afterwards nothing serves any more."""
    from ray import serve

    flag = airflow.folder / "probe" / "real"
    flag.parent.mkdir(exist_ok=True)
    flag.touch()
    airflow.unpause(*DAGS)
    yield airflow
    airflow.pause(*DAGS)
    flag.unlink()
    serve.shutdown()


def test_one_trigger_brings_a_log_through_every_dag_to_an_endpoint(real: Scheduler):
    before = runs(real)
    real.trigger("ingest", {"start": "2017-10-02", "stop": "2018-01-02"})
    until(
        lambda: failure(real, before) or (done(real, before) and real.idle()),
        1200,
        "the endpoint is deployed",
        real.check_alive,
        every_s=3,
    )
    assert not failure(real, before)
    for (dag_id, task_id), steps in PUBLISHED.items():
        (run,) = [run for run in runs(real) - before if run[0] == dag_id and real.jobs(run[1])]
        result = json.loads(Path(real.xcom(*run, task_id).removeprefix("file://")).read_bytes())
        assert set(result["manifests"]) == steps
    assert requests.get(f"http://127.0.0.1:{real.serving_port}/healthz", timeout=30).status_code == 200


def runs(airflow: Scheduler) -> set[tuple[str, str]]:
    return {(dag_id, run["dag_run_id"]) for dag_id in DAGS for run in airflow.runs(dag_id)}


def done(airflow: Scheduler, before: set[tuple[str, str]]) -> bool:
    return any(dag_id == "deploy" for dag_id, _ in runs(airflow) - before)


def failure(airflow: Scheduler, before: set[tuple[str, str]]) -> str:
    """What the first failed task told its user."""
    for dag_id, run_id in runs(airflow) - before:
        for task in airflow.task_states(dag_id, run_id):
            if task.state in ("failed", "up_for_retry"):
                return airflow.task_log(dag_id, run_id, task.task_id, task.try_number)
    return ""
