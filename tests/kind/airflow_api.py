"""Airflow in the cluster, through its REST API as the user admin."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests


@dataclass
class Airflow:
    url: str
    password: str
    token: str = ""

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """One request; again after a lost connection, as pods come and go in these tests."""
        for attempt in range(5):
            try:
                if not self.token:
                    login = {"username": "admin", "password": self.password}
                    answer = requests.post(f"{self.url}/auth/token", json=login, timeout=60)
                    answer.raise_for_status()
                    self.token = answer.json()["access_token"]
                headers = {"Authorization": f"Bearer {self.token}"}
                answer = requests.request(method, f"{self.url}/api/v2{path}", headers=headers, timeout=60, **kwargs)
                answer.raise_for_status()
                return answer.json() if answer.content else None
            except requests.ConnectionError:
                if attempt == 4:
                    raise
                time.sleep(5)
        raise AssertionError

    def dag_ids(self) -> set[str]:
        return {dag["dag_id"] for dag in self.call("GET", "/dags", params={"limit": 100})["dags"]}

    def import_errors(self) -> list[str]:
        return [e["stack_trace"] for e in self.call("GET", "/importErrors")["import_errors"]]

    def unpause(self, dag_id: str) -> None:
        self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        body = {"conf": dict(conf or {}), "logical_date": None}
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns", params={"limit": 100})["dag_runs"])

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"])

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> str:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.call("GET", path, params={"full_content": True})["content"]
        return "\n".join(str(line.get("event", line)) if isinstance(line, dict) else str(line) for line in content)
