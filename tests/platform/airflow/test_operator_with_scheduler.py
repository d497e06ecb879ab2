"""The operator under a real scheduler and a real Ray: what happens to the job when something happens to its task."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.airflow_fixtures import Scheduler, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.fixture
def gate(tmp_path) -> Path:
    """The job waits until this file is there."""
    return tmp_path / "go"


@pytest.fixture(autouse=True)
def _unpaused(airflow: Scheduler):
    airflow.unpause("probe", "probe_in_time", "probe_too_big")


def started(airflow: Scheduler, gate: Path, dag_id: str = "probe") -> str:
    """A run whose job has started and waits. Returns the run's id."""
    run = airflow.trigger(dag_id, {"wait_for": str(gate)})
    until(lambda: [t for t in airflow.traces() if t["params"].get("wait_for") == str(gate)], what="the job starts")
    return run


def task_process(airflow: Scheduler, run: str) -> psutil.Process:
    """The process that runs the operator; its parent is the supervisor, Airflow's worker."""
    task = airflow.call("GET", f"/dags/probe/dagRuns/{run}/taskInstances/probe")
    return psutil.Process(task["pid"])


def job_states(airflow: Scheduler, run: str) -> list[str]:
    return [job["status"] for job in airflow.jobs(run)]


def test_success_streams_the_log_and_hands_its_result_to_the_next_dag(airflow, gate):
    airflow.unpause("probe_downstream")
    gate.touch()
    run = started(airflow, gate)
    assert airflow.wait("probe", run) == "success"
    result = airflow.xcom("probe", run, "probe")
    assert Path(result.removeprefix("file://")).exists()
    log = airflow.task_log("probe", run, "probe")
    assert log.count("probe: started") == log.count("probe: done") == 1
    until(lambda: [t for t in airflow.traces() if t["inputs_from"] == [result]], what="the next DAG reads the result")
    airflow.pause("probe_downstream")


def test_the_users_mistake_is_shown_and_not_retried(airflow):
    run = airflow.trigger("probe", {"exit": 2, "say": "column 'userid' is not in day.csv"})
    assert airflow.wait("probe", run) == "failed"
    assert airflow.task("probe", run, "probe").try_number == 1
    assert "column 'userid' is not in day.csv\n  remedy: mend it" in error_shown(airflow, run)


def error_shown(airflow: Scheduler, run: str, dag_id: str = "probe") -> str:
    """The message of the error that Airflow logged for the task's first try."""
    path = f"/dags/{dag_id}/dagRuns/{run}/taskInstances/probe/logs/1"
    events = airflow.call("GET", path, params={"full_content": True})["content"]
    return "\n".join(detail["exc_value"] for event in events for detail in event.get("error_detail") or [])


def test_another_failure_is_retried_as_a_new_job(airflow):
    run = airflow.trigger("probe", {"exit": 3, "say": "out of luck"})
    assert airflow.wait("probe", run) == "failed"
    assert job_states(airflow, run) == ["FAILED"] * 3
    assert "out of luck" in error_shown(airflow, run)


def test_a_killed_task_process_finds_its_job_again(airflow, gate):
    run = started(airflow, gate)
    task_process(airflow, run).kill()
    until(lambda: airflow.task("probe", run, "probe").try_number == 2)
    gate.touch()
    assert airflow.wait("probe", run) == "success"
    assert job_states(airflow, run) == ["SUCCEEDED"]
    assert airflow.xcom("probe", run, "probe").endswith(f"{airflow.jobs(run)[0]['submission_id']}.json")


def test_a_killed_worker_whose_job_succeeds_meanwhile_takes_its_result(airflow, gate):
    run = started(airflow, gate)
    task = task_process(airflow, run)
    for process in (task.parent(), task):
        process.kill()
    gate.touch()
    until(lambda: job_states(airflow, run) == ["SUCCEEDED"])
    assert airflow.wait("probe", run) == "success"
    assert airflow.task("probe", run, "probe").try_number == 2
    assert job_states(airflow, run) == ["SUCCEEDED"]


def test_an_eviction_leaves_the_job_to_the_retry(airflow, gate):
    run = started(airflow, gate)
    os.kill(task_process(airflow, run).parent().pid, signal.SIGTERM)
    until(lambda: airflow.task("probe", run, "probe").try_number == 2)
    assert job_states(airflow, run) == ["RUNNING"]
    gate.touch()
    assert airflow.wait("probe", run) == "success"
    assert job_states(airflow, run) == ["SUCCEEDED"]


def test_marking_the_task_failed_stops_the_job(airflow, gate):
    run = started(airflow, gate)
    airflow.call("PATCH", f"/dags/probe/dagRuns/{run}/taskInstances/probe", json={"new_state": "failed"})
    until(lambda: job_states(airflow, run) == ["STOPPED"])


def test_clear_of_a_running_task_stops_the_job_and_sends_another(airflow, gate):
    run = started(airflow, gate)
    clear(airflow, run)
    until(lambda: job_states(airflow, run) == ["STOPPED", "RUNNING"])
    gate.touch()
    assert airflow.wait("probe", run) == "success"
    assert job_states(airflow, run) == ["STOPPED", "SUCCEEDED"]


def test_clear_of_a_succeeded_task_runs_the_job_again(airflow, gate):
    gate.touch()
    run = started(airflow, gate)
    assert airflow.wait("probe", run) == "success"
    clear(airflow, run)
    until(lambda: job_states(airflow, run) == ["SUCCEEDED", "SUCCEEDED"])
    assert airflow.wait("probe", run) == "success"


def clear(airflow: Scheduler, run: str) -> None:
    body = {"dry_run": False, "dag_run_id": run, "only_failed": False, "task_ids": ["probe"]}
    airflow.call("POST", "/dags/probe/clearTaskInstances", json=body)


def test_a_task_out_of_time_stops_its_job(airflow, gate):
    run = started(airflow, gate, "probe_in_time")
    assert airflow.wait("probe_in_time", run) == "failed"
    until(lambda: job_states(airflow, run) == ["STOPPED"])


def test_a_job_that_finds_no_resources_fails_with_the_reason(airflow):
    run = airflow.trigger("probe_too_big")
    assert airflow.wait("probe_too_big", run) == "failed"
    assert airflow.task("probe_too_big", run, "probe").try_number == 1
    error = error_shown(airflow, run, "probe_too_big")
    assert "could not be scheduled in 4 s" in error
    assert "resources" in error
