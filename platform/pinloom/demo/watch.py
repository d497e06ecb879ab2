"""Follow the DAGs as the scheduler runs them: a line for each change, and what a long task says meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator

from components.errors import UserError
from pinloom.local.airflow import LocalAirflow, TaskState

POLL_S = 2.0
QUIET_S = 10.0
"""A task that runs longer without a change shows the newest line of its log."""
WIDTH = 110


class Watch:
    """Prints the progress of all runs of some DAGs that began after it was made."""

    def __init__(self, airflow: LocalAirflow, dag_ids: tuple[str, ...]) -> None:
        self.airflow = airflow
        self.dag_ids = dag_ids
        self._before = {dag: {r["dag_run_id"] for r in airflow.runs(dag)} for dag in dag_ids}
        self._seen: dict[tuple[str, str, str], tuple[str | None, int]] = {}
        self._said: dict[tuple[str, str, str], str] = {}
        self._started = time.monotonic()
        self._spoke = self._started

    def until_success(self, dag_id: str, timeout_s: float) -> None:
        """Until a new run of `dag_id` has succeeded.

        Raises:
            UserError: a task of any of the DAGs failed (the end of its log is quoted), or time is up.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.airflow.check_alive()
            self._look()
            if any(run["state"] == "success" for run in self._runs(dag_id)):
                return
            time.sleep(POLL_S)
        raise UserError(f"{dag_id} had no successful run in {timeout_s:.0f} s", f"see {self.airflow.logs}")

    def jobs(self) -> Iterator[tuple[str, float, str]]:
        """Task, seconds from its start to its end and the URI of its job's result, of each job that succeeded."""
        for dag_id in self.dag_ids:
            for run in self._runs(dag_id):
                for task in self.airflow.task_states(dag_id, run["dag_run_id"]):
                    if task.state == "success" and task.duration_s:
                        result = self.airflow.xcom(dag_id, run["dag_run_id"], task.task_id)
                        if isinstance(result, str):
                            yield f"{dag_id}.{task.task_id}", task.duration_s, result

    def _runs(self, dag_id: str) -> list[dict[str, str]]:
        return [r for r in self.airflow.runs(dag_id) if r["dag_run_id"] not in self._before[dag_id]]

    def _look(self) -> None:
        for dag_id in self.dag_ids:
            for run in self._runs(dag_id):
                for task in self.airflow.task_states(dag_id, run["dag_run_id"]):
                    self._report(dag_id, run["dag_run_id"], task)
                if run["state"] == "failed":
                    raise UserError(f"DAG {dag_id} failed", self._log_tail(dag_id, run["dag_run_id"]))

    def _report(self, dag_id: str, run_id: str, task: TaskState) -> None:
        key = (dag_id, run_id, task.task_id)
        state = (task.state, task.try_number)
        if state != self._seen.get(key) and task.state not in (None, "scheduled", "queued"):
            self._seen[key] = state
            self._say(f"{dag_id}.{task.task_id}", f"{task.state} {_took(task)}")
        elif task.state == "running" and time.monotonic() - self._spoke > QUIET_S:
            line = self._last_line(*key, task.try_number)
            if line and line != self._said.get(key):
                self._said[key] = line
                self._say(f"{dag_id}.{task.task_id}", f"  {line[:WIDTH]}")

    def _say(self, task: str, what: str) -> None:
        self._spoke = time.monotonic()
        print(f"  {self._spoke - self._started:5.0f} s  {task:28} {what}", flush=True)

    def _last_line(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> str:
        lines = self.airflow.task_log(dag_id, run_id, task_id, try_number).splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _log_tail(self, dag_id: str, run_id: str) -> str:
        failed = [t for t in self.airflow.task_states(dag_id, run_id) if t.state == "failed"]
        logs = [self.airflow.task_log(dag_id, run_id, t.task_id, t.try_number) for t in failed]
        return "its log ends:\n" + "\n".join("\n".join(log.splitlines()[-25:]) for log in logs)


def _took(task: TaskState) -> str:
    return f"after {task.duration_s:.0f} s" if task.duration_s and task.state != "running" else ""
