"""A scheduler of Airflow on this machine: database, DAG processor, scheduler and API server, and nothing left after.

with LocalAirflow(home / "airflow", dags) as airflow:
    run = airflow.trigger("ingest", {"start": "2017-11-01", "stop": "2017-11-08"})
    airflow.wait("ingest", run)
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from components.errors import UserError
from pinloom.local.processes import ProcessTree, stop_all
from pinloom.ports import free_port

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 120.0
COMPONENTS = {
    "api-server": ["api-server", "--host", "127.0.0.1", "--workers", "1"],
    "scheduler": ["scheduler"],
    "dag-processor": ["dag-processor"],
}
FINISHED = ("success", "failed")


class ApiError(RuntimeError):
    """An answer of the REST API that is not 2xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class TaskState:
    """One task of a run. `duration_s` is None until it has started and ended."""

    task_id: str
    state: str | None
    try_number: int
    map_index: int
    duration_s: float | None


class LocalAirflow:
    """Airflow 3 on SQLite, on free ports of 127.0.0.1, without login. A context manager; `start` and `stop` besides.

    Args:
        home: AIRFLOW_HOME: database and logs; kept between runs.
        dags_folder: the DAGs.
        env: added to the environment of every process, tasks included (`PINLOOM_*`, `Head.env`).
        config: `{"section.option": value}` of Airflow, over the defaults chosen here.
        port: of the API and the user interface; a free one by default.
        parallelism: tasks at a time.
    """

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        env: Mapping[str, str] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        port: int | None = None,
        parallelism: int = 8,
    ) -> None:
        self.home = home.resolve()
        self.url = f"http://127.0.0.1:{port or free_port()}"
        self.env = self._environment(dags_folder.resolve(), dict(env or {}), parallelism, dict(config or {}))
        self._trees: list[ProcessTree] = []
        self._api = requests.Session()

    def __enter__(self) -> LocalAirflow:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def logs(self) -> Path:
        """`<component>.log` of the processes; the tasks' logs are below `dag_id=…`."""
        return self.home / "logs"

    def start(self) -> None:
        """Migrate the database, start the processes, return when the API answers and all of them are healthy.

        Raises:
            UserError: not healthy in 120 s; the message has the end of the log of the process that is not.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        self._run("db", "migrate")
        try:
            for name, command in COMPONENTS.items():
                extra = ["--port", self.url.rsplit(":", 1)[1]] if name == "api-server" else []
                self._trees.append(
                    ProcessTree(self._command(*command, *extra), env=self.env, log=self.logs / f"{name}.log")
                )
            self._wait_until(self._healthy, READY_TIMEOUT_S, "Airflow is not healthy")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process that was started, and what those started. Safe to call twice."""
        stop_all(self._trees, STOP_TIMEOUT_S)
        self._trees = []

    def check_alive(self) -> None:
        """
        Raises:
            UserError: one of the processes has ended; the message has the end of its log.
        """
        dead = [tree for tree in self._trees if not tree.alive]
        if dead:
            raise UserError(f"a process of Airflow ended:\n{dead[0].tail()}", f"the whole log is {dead[0].log}")

    def wait_for_dags(self, *dag_ids: str, timeout_s: float = 60.0) -> None:
        """Until the DAG processor has read them.

        Raises:
            UserError: not in time; the message has the import errors.
        """
        self._wait_until(lambda: set(dag_ids) <= self.dag_ids(), timeout_s, f"no DAG {', '.join(dag_ids)}")

    def dag_ids(self) -> set[str]:
        return {dag["dag_id"] for dag in self._get("/dags", limit=1000)["dags"]}

    def import_errors(self) -> dict[str, str]:
        """File → traceback."""
        return {e["filename"]: e["stack_trace"] for e in self._get("/importErrors")["import_errors"]}

    def pause(self, *dag_ids: str, paused: bool = True) -> None:
        for dag_id in dag_ids:
            self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})

    def unpause(self, *dag_ids: str) -> None:
        self.pause(*dag_ids, paused=False)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, logical_date: datetime | None = None) -> str:
        """Start a run with these params; returns its run id. The DAG must not be paused, else the run stays queued.

        Without a logical date the run has no data interval. With one outside the DAG's start and end, Airflow makes a
        run without tasks, and that succeeds.
        """
        body = {"conf": dict(conf or {}), "logical_date": logical_date and logical_date.isoformat()}
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def backfill(self, dag_id: str, first: date, last: date, max_active_runs: int = 10, timeout_s: float = 60.0) -> int:
        """A run for each scheduled day from `first` to `last`, both included, then unpause; returns the backfill's id.

        On SQLite, Airflow answers 503 when the scheduler wrote at the same moment, and takes back the runs that it
        had made; a scheduler that had started one of them then ends. So the DAG is paused until all are there, and
        Airflow asked again until `timeout_s`.
        """
        self.pause(dag_id)
        body = {
            "dag_id": dag_id,
            "from_date": first.isoformat(),
            "to_date": last.isoformat(),
            "max_active_runs": max_active_runs,
        }
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                backfill = self.call("POST", "/backfills", json=body)
                self.unpause(dag_id)
                return int(backfill["id"])
            except ApiError as e:
                if e.status != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Runs of a DAG, oldest first, as the REST API gives them (`dag_run_id`, `state`, `run_type`, …)."""
        return list(self._get(f"/dags/{dag_id}/dagRuns", order_by="id", limit=1000)["dag_runs"])

    def idle(self) -> bool:
        """Nothing is queued or running, and no asset event waits to start a run of an unpaused DAG."""
        if self._busy():
            return False
        unpaused = self._get("/dags", paused=False, limit=1000)["dags"]
        # An event that was taken up while the DAGs were asked is a run by now.
        return not any(self._events_wait(dag["dag_id"]) for dag in unpaused) and not self._busy()

    def _busy(self) -> bool:
        return bool(self._get("/dags/~/dagRuns", state=["queued", "running"], limit=1)["dag_runs"])

    def _events_wait(self, dag_id: str) -> bool:
        try:
            return bool(self._get(f"/dags/{dag_id}/assets/queuedEvents")["queued_events"])
        except ApiError as e:
            if e.status != HTTPStatus.NOT_FOUND:
                raise
            return False

    def task_states(self, dag_id: str, run_id: str) -> list[TaskState]:
        found = self._get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=1000)["task_instances"]
        return [TaskState(t["task_id"], t["state"], t["try_number"], t["map_index"], t["duration"]) for t in found]

    def wait(self, dag_id: str, run_id: str, timeout_s: float = 600.0, poll_s: float = 0.5) -> str:
        """Until the run has ended; returns `success` or `failed`."""
        self._wait_until(
            lambda: self.run(dag_id, run_id)["state"] in FINISHED,
            timeout_s,
            f"run {run_id} of {dag_id} goes on",
            poll_s,
        )
        return str(self.run(dag_id, run_id)["state"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return dict(self._get(f"/dags/{dag_id}/dagRuns/{run_id}"))

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self._get(path, deserialize=True)["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """What the task logged, one event a line."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self._get(path, full_content=True)["content"]
        return "\n".join(str(line.get("event", line)) if isinstance(line, dict) else str(line) for line in content)

    def cli(self, *args: str) -> str:
        """Run `airflow …` on this home and return what it printed."""
        return self._run(*args)

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """One request to the REST API (v2), as admin; its JSON.

        Raises:
            ApiError: any other answer than 2xx.
        """
        if "Authorization" not in self._api.headers:
            token = self._api.get(f"{self.url}/auth/token", timeout=10).json()["access_token"]
            self._api.headers["Authorization"] = f"Bearer {token}"
        response = self._api.request(method, f"{self.url}/api/v2{path}", timeout=REQUEST_TIMEOUT_S, **kwargs)
        if not response.ok:
            said = f"Airflow answered {method} {path} with {response.status_code}: {response.text}"
            raise ApiError(response.status_code, said)
        return response.json() if response.content else None

    def _get(self, path: str, **params: Any) -> Any:
        return self.call("GET", path, params=params)

    def _healthy(self) -> bool:
        self.check_alive()
        try:
            health = self._api.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
        except requests.RequestException:
            return False
        return all(health[name]["status"] == "healthy" for name in ("metadatabase", "scheduler", "dag_processor"))

    def _wait_until(self, holds: Callable[[], bool], timeout_s: float, what: str, poll_s: float = 0.3) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            self.check_alive()
            if time.monotonic() > deadline:
                raise UserError(f"{what} after {timeout_s:.0f} s", f"see the logs in {self.logs}")
            time.sleep(poll_s)

    def _command(self, *args: str) -> list[str]:
        return [str(Path(sys.executable).with_name("airflow")), *args]

    def _run(self, *args: str) -> str:
        done = subprocess.run(self._command(*args), env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"airflow {' '.join(args)} failed:\n{done.stderr[-3000:]}", f"AIRFLOW_HOME is {self.home}")
        return done.stdout

    def _environment(self, dags: Path, env: dict[str, str], parallelism: int, config: dict[str, Any]) -> dict[str, str]:
        chosen: dict[str, Any] = {
            "core.dags_folder": dags,
            "core.load_examples": False,
            "core.executor": "LocalExecutor",
            "core.parallelism": parallelism,
            "core.dags_are_paused_at_creation": True,
            "core.simple_auth_manager_all_admins": True,
            "core.execution_api_server_url": f"{self.url}/execution/",
            "core.min_serialized_dag_update_interval": 5,
            "api.base_url": self.url,
            "api.secret_key": secrets.token_hex(16),
            "api_auth.jwt_secret": secrets.token_hex(16),
            # Three processes write to one file: wait for the lock instead of dying of "database is locked".
            "database.sql_alchemy_conn": f"sqlite:///{self.home}/airflow.db?timeout=60",
            "logging.base_log_folder": self.home / "logs",
            "dag_processor.refresh_interval": 30,
            "dag_processor.min_file_process_interval": 30,
            "dag_processor.parsing_processes": 1,
            "usage_data_collection.enabled": False,
        } | config
        options = {f"AIRFLOW__{k.replace('.', '__').upper()}": str(v) for k, v in chosen.items()}
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return os.environ | {"PATH": binaries, "AIRFLOW_HOME": str(self.home)} | options | env
