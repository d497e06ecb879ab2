"""The scheduler of the test session, beside the session's one Ray. Its jobs are real processes in Ray."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from pinloom.local.airflow import LocalAirflow, TaskState
from pinloom.ports import free_port
from pinloom.ray_cluster import Head

TESTS = Path(__file__).parent
PROBE = TESTS / "platform" / "airflow" / "probe.py"


def until(
    holds: Callable[[], Any],
    timeout_s: float = 120.0,
    what: str = "",
    check: Callable[[], object] = bool,
    every_s: float = 0.2,
) -> Any:
    """The first true answer of `holds`; `check` raises when it will never be.

    Args:
        every_s: between two looks. Each costs the API server a core's time: jobs that work beside it want it longer.
    """
    deadline = time.monotonic() + timeout_s
    while not (answer := holds()):
        check()
        if time.monotonic() > deadline:
            pytest.fail(f"not in {timeout_s:.0f} s: {what or holds}")
        time.sleep(every_s)
    return answer


class Scheduler(LocalAirflow):
    """An Airflow with the shipped DAGs and the probes, and what the jobs of its tasks left."""

    def __init__(self, folder: Path, head: Head, command: str = f"{sys.executable} {PROBE}") -> None:
        self.folder, self.head = folder, head
        self.serving_port = free_port()
        for name in ("dags", "probe", "home"):
            (folder / name).mkdir()
        for dag in (*(TESTS.parent / "dags").glob("*.py"), *(TESTS / "dags" / "probes").glob("*.py")):
            shutil.copy(dag, folder / "dags")
        super().__init__(folder / "airflow", folder / "dags", self._pinloom(command), config=FAST)

    def _pinloom(self, command: str) -> dict[str, str]:
        return self.head.env | {
            "PINLOOM_HOME": str(self.folder / "home"),
            "PINLOOM_PROBE": str(self.folder / "probe"),
            "PINLOOM_AIRFLOW__COMMAND": command,
            "PINLOOM_USERS_SAMPLE": "0.03",
            "PINLOOM_TRAINING__WORKERS": "1",
            "PINLOOM_SERVING__PORT": str(self.serving_port),
            "PINLOOM_SERVING__REQUIRE_API_KEY": "false",
            "PINLOOM_SERVING__MAX_REPLICAS": "1",
            "PINLOOM_AIRFLOW__TRAIN_FLAVOUR": json.dumps(dict.fromkeys(RECIPES, "debug")),
            "PINLOOM_AIRFLOW__EVALUATION": json.dumps(dict.fromkeys(RANKERS, SMALL)),
            "PINLOOM_SERVING__RECIPE": "pinfm_ranker",
            "PINLOOM_AIRFLOW__TRAIN_DAYS": "21",
            "PINLOOM_AIRFLOW__LOG_END": "2018-01-01",
            "PINLOOM_AIRFLOW__POLL_INTERVAL_S": "0.5",
            "PINLOOM_AIRFLOW__RETRY_DELAY_S": "1",
            "PINLOOM_AIRFLOW__SETTLE_INTERVAL_S": "1",
        }

    def jobs(self, run_id: str) -> list[dict[str, Any]]:
        """Ray's own account of the jobs that a run sent, oldest first."""
        headers = {"Authorization": f"Bearer {self.head.token}"}
        answer = requests.get(f"{self.head.jobs_url}/api/jobs/", headers=headers, timeout=10).json()
        mine = [job for job in answer if (job["metadata"] or {}).get("run") == run_id]
        return sorted(mine, key=lambda job: job["start_time"])

    def task(self, dag_id: str, run_id: str, task_id: str) -> TaskState:
        return next(t for t in self.task_states(dag_id, run_id) if t.task_id == task_id)

    def traces(self) -> list[dict[str, Any]]:
        """What the probe jobs wrote when they started."""
        trace = self.folder / "probe" / "started.jsonl"
        return [json.loads(line) for line in trace.read_text().splitlines()] if trace.exists() else []


SHIPPED = ("ingest", "features", "pretrain_pinfm", "train_pinsage", "train_transact", "finetune_pinfm", "deploy")
RANKERS = ("transact", "pinfm_ranker")
RECIPES = ("pinsage", "pinfm", *RANKERS)
SMALL = {"max_requests": 300, "full_requests": 20}

FAST = {
    "scheduler.task_instance_heartbeat_timeout": 15,
    "scheduler.task_instance_heartbeat_timeout_detection_interval": 2,
    "workers.min_heartbeat_interval": 1,
    "core.default_task_retry_delay": 1,
}
"""Airflow waits 300 s for a lost task and before a retry."""


@pytest.fixture(scope="session")
def airflow(ray_cluster: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    """The session's scheduler with the shipped DAGs and the probes, all paused, on the session's Ray."""
    with Scheduler(tmp_path_factory.mktemp("airflow"), ray_cluster) as scheduler:
        scheduler.wait_for_dags(*SHIPPED, "probe")
        yield scheduler
