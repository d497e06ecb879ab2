"""Airflow in the cluster, through its REST API as the user admin."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests

PATIENCE_S = 600.0
"""Pods come and go in these tests, and start slowly."""


@dataclass
class Airflow:
    url: str
    password: str
    token: str = ""

    def call(self, method: str, path: str, *, also: tuple[int, ...] = (), **kwargs: Any) -> Any:
        """The JSON of the answer, asked for until Airflow is there. None for a status of `also`.

        Raises:
            requests.RequestException: it is not there in time, or answers 4xx.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._once(method, path, also, **kwargs)
            except (requests.ConnectionError, requests.Timeout, requests.HTTPError) as e:
                status = e.response.status_code if e.response is not None else HTTPStatus.SERVICE_UNAVAILABLE
                if status == HTTPStatus.UNAUTHORIZED:
                    self.token = ""
                elif status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                if time.monotonic() > deadline:
                    raise
                time.sleep(5)

    def _once(self, method: str, path: str, also: tuple[int, ...], **kwargs: Any) -> Any:
        if not self.token:
            login = {"username": "admin", "password": self.password}
            answer = requests.post(f"{self.url}/auth/token", json=login, timeout=60)
            answer.raise_for_status()
            self.token = answer.json()["access_token"]
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = requests.request(method, f"{self.url}/api/v2{path}", headers=headers, timeout=60, **kwargs)
        if answer.status_code in also:
            return None
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def dag_ids(self) -> set[str]:
        return {dag["dag_id"] for dag in self.call("GET", "/dags", params={"limit": 100})["dags"]}

    def import_errors(self) -> list[str]:
        return [e["stack_trace"] for e in self.call("GET", "/importErrors")["import_errors"]]

    def unpause(self, dag_id: str) -> None:
        self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """The new run's id. It is ours, so that a request whose answer was lost makes no second run."""
        run_id = f"kind__{uuid.uuid4().hex[:12]}"
        body = {"dag_run_id": run_id, "conf": dict(conf or {}), "logical_date": None}
        self.call("POST", f"/dags/{dag_id}/dagRuns", json=body, also=(HTTPStatus.CONFLICT,))
        return run_id

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns", params={"limit": 100})["dag_runs"])

    def succeeded(self, dag_id: str) -> list[str]:
        return [run["dag_run_id"] for run in self.runs(dag_id) if run["state"] == "success"]

    def state(self, dag_id: str, run_id: str) -> str:
        return str(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"])

    def failures(self, dag_id: str, run_id: str) -> str:
        """The tasks that are not well, with the ends of their logs."""
        bad = [task for task in self.tasks(dag_id, run_id) if task["state"] not in ("success", "skipped", None)]
        logs = (self.log(dag_id, run_id, task["task_id"])[-6000:] for task in bad)
        return "\n".join(f"--- {task['task_id']} {task['state']}\n{log}" for task, log in zip(bad, logs, strict=True))

    def log(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Of all tries."""
        (task,) = (t for t in self.tasks(dag_id, run_id) if t["task_id"] == task_id)
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs"
        lines: list[Any] = []
        for attempt in range(1, task["try_number"] + 1):
            lines += self.call("GET", f"{path}/{attempt}", params={"full_content": True})["content"]
        return "\n".join(said(line) if isinstance(line, dict) else str(line) for line in lines)


def said(line: dict[str, Any]) -> str:
    """A line of a task's log, with what was raised, if anything was."""
    raised = [f"{e['exc_type']}: {e['exc_value']}" for e in line.get("error_detail") or []]
    return "\n".join([str(line.get("event", line)), *raised])
