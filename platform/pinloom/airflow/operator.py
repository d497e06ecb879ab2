"""`RayJobOperator`: one task of Airflow is one job of Ray, and survives the worker that watches it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseHook, BaseOperator, ResumableJobMixin
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout

from components.errors import UserError
from pinloom.airflow import submission
from pinloom.airflow.jobs import Job, JobBackend, JobsError, JobsRefused, JobState, JobStatus, JobsUnreachable
from pinloom.airflow.kuberay import KubeRayJobs
from pinloom.airflow.logs import LogFollower, failure_text
from pinloom.airflow.ray_jobs import RayJobs
from pinloom.settings import get_settings

if TYPE_CHECKING:
    from airflow.sdk import Context

WRONG_USE = 2
"""Exit code of `pinloom` for an error that only the user can mend: trying again does not help."""
STOP_WAIT_S = 4.0
"""Airflow's supervisor sends SIGKILL 5 s after SIGTERM; Ray gives a stopped job 3 s."""
KILL_NOTICE_S = 0.2
"""How soon a sleeping poll loop sees that it is to end."""
USER_KILLED = {"failed", "success", "skipped", "restarting", "removed", None}
"""States of a task that a user's action, or the end of its retries, leaves: nothing will attach to its job."""


class RayJobOperator(ResumableJobMixin, BaseOperator):
    """Run `pinloom step <steps> --param … --result <uri>` as a Ray job; return the URI of its result.

    Retries belong to Airflow alone. A retry finds the id of the job that the earlier try sent, and attaches to it
    while it runs, takes its result when it has succeeded meanwhile, and sends a new one when it failed or Ray forgot
    it. On success the id is forgotten, so that *Clear* runs the job again.

    A kill reaches the task as SIGTERM whoever sent it. When Airflow still says that the task is running, it was an
    eviction: the job goes on and the retry attaches to it. Otherwise (marked, cleared, deleted, timed out, or no
    retry left) the job is stopped.

    Args:
        steps: names of steps, run in order in one process.
        step_params: parameters of the steps; empty values are left out.
        dataset: data set; default that of the events whose results are the inputs, else the setting.
        inputs_from: results of earlier jobs whose manifests become inputs. Default: those that the asset events
            which triggered the run carry; without any, the steps read the latest.
        env: environment of the job, added to Airflow's own `PINLOOM_*` variables (secrets excepted).
        outlet_extra: added to the extra of the outlets' asset events, which has the result's URI as `result` and the
            data set as `dataset`.
        command: what runs a step, where the jobs run; default the setting (`pinloom`).
        cpus: logical CPUs that Ray reserves for the entrypoint.
        pending_timeout_s: how long a job may wait for resources before it fails with Ray's reason.
        unreachable_timeout_s: how long Ray may not answer before the try fails.
        poll_interval_s: seconds between two looks.
        ray_conn_id: Airflow connection with the URL and, as password, the token; default the settings.
        rayjob_spec: on Kubernetes, fields of the RayJob's spec over those of the template, as KubeRay names them.
    """

    external_id_key = "ray_submission_id"
    template_fields: Sequence[str] = (
        "steps",
        "step_params",
        "dataset",
        "inputs_from",
        "env",
        "outlet_extra",
        "rayjob_spec",
    )
    template_fields_renderers = {"step_params": "json", "env": "json"}  # noqa: RUF012 (read by Airflow as it is)
    ui_color = "#cfe8fc"

    def __init__(
        self,
        *,
        steps: Sequence[str],
        step_params: Mapping[str, Any] | None = None,
        dataset: str = "",
        inputs_from: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        outlet_extra: Mapping[str, str] | None = None,
        command: str | None = None,
        cpus: float = 0.0,
        pending_timeout_s: float | None = None,
        unreachable_timeout_s: float = 60.0,
        poll_interval_s: float | None = None,
        ray_conn_id: str | None = None,
        rayjob_spec: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        settings = get_settings().airflow
        self.steps = list(steps)
        self.step_params = dict(step_params or {})
        self.dataset = dataset
        self.inputs_from = None if inputs_from is None else list(inputs_from)
        self.env = dict(env or {})
        self.outlet_extra = dict(outlet_extra or {})
        self.command = command or settings.command
        self.cpus = cpus
        self.pending_timeout_s = settings.pending_timeout_s if pending_timeout_s is None else pending_timeout_s
        self.unreachable_timeout_s = unreachable_timeout_s
        self.poll_interval_s = settings.poll_interval_s if poll_interval_s is None else poll_interval_s
        self.ray_conn_id = ray_conn_id
        self.rayjob_spec = dict(rayjob_spec or {})
        self._killed = False
        self._job_id = ""

    # What Airflow calls.

    def execute(self, context: Context) -> str:
        self.dataset = self.dataset or self._dataset_of_events(context)
        try:
            uri = str(self.execute_resumable(context))
        except AirflowTaskTimeout:
            if self._job_id:
                self._stop(self._job_id)
            raise
        except (JobsRefused, UserError) as e:
            raise AirflowFailException(str(e)) from None
        except JobsError as e:
            raise AirflowException(str(e)) from None
        # Else *Clear* on the succeeded task would find the id, see a success and run nothing.
        context["task_state_store"].delete(self.external_id_key)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {"result": uri, "dataset": self.dataset, **self.outlet_extra}
        return uri

    def on_kill(self) -> None:
        # A signal handler: it may have interrupted a talk with the supervisor, so it only leaves word.
        self._killed = True

    # What the mixin calls.

    def submit_job(self, context: Context) -> str:
        job_id = self._free_id(context)
        # Before the job is sent, not after, as the mixin does: a worker that dies in between leaves no job unknown.
        context["task_state_store"].set(self.external_id_key, job_id)
        job = Job(
            submission_id=job_id,
            entrypoint=submission.entrypoint(
                self.command,
                self.steps,
                self.step_params,
                self.dataset,
                self._inputs(context),
                self._result_uri(job_id),
            ),
            env=submission.environment(get_settings()) | self.env,
            metadata={"dag": self.dag_id, "task": self.task_id, "run": context["ti"].run_id},
            cpus=self.cpus,
        )
        self.log.info("Ray job %s: %s", job_id, job.entrypoint)
        self._job_id = job_id
        self._jobs.submit(job)
        return job_id

    def get_job_status(self, external_id: Any, context: Context) -> str:
        return self._look(str(external_id)).state

    def is_job_active(self, status: str) -> bool:
        return JobState(status).active

    def is_job_succeeded(self, status: str) -> bool:
        return status == JobState.SUCCEEDED

    def get_job_result(self, external_id: Any, context: Context) -> str:
        return self._result_uri(str(external_id))

    def poll_until_complete(self, external_id: Any, context: Context) -> str:
        """Follow the job to its end. Returns its result, as on reconnect the mixin hands on what this returns.

        Raises:
            AirflowFailException: the user's mistake, or no resources in time: a retry would not help.
            AirflowException: the job failed, was stopped or lost.
        """
        self._job_id = job_id = str(external_id)
        follower = LogFollower(lambda: self._jobs.logs(job_id), self.log.info)
        pending_until = time.monotonic() + self.pending_timeout_s
        while True:
            if self._killed:
                self._end_after_kill(job_id, context)
            status = self._look(job_id)
            if not status.state.active:
                break
            if status.state == JobState.PENDING and (status.hopeless or time.monotonic() > pending_until):
                self._fail_pending(job_id, status)
            follower.follow()
            self._sleep(self.poll_interval_s)
        follower.finish()
        self._raise_unless_succeeded(job_id, status, follower.text)
        return self._result_uri(job_id)

    # The rest.

    @cached_property
    def _jobs(self) -> JobBackend:
        if get_settings().airflow.backend == "kuberay":
            return KubeRayJobs(get_settings(), self.steps[0], self.rayjob_spec)
        if self.ray_conn_id:
            conn = BaseHook.get_connection(self.ray_conn_id)
            return RayJobs(f"{conn.schema or 'http'}://{conn.host}:{conn.port or 8265}", conn.password)
        ray = get_settings().ray
        return RayJobs(ray.jobs_url, ray.token.get_secret_value() if ray.token else None)

    @property
    def _place(self) -> str:
        return "Kubernetes" if get_settings().airflow.backend == "kuberay" else "Ray"

    def _free_id(self, context: Context) -> str:
        """The first id of this task whose job has not ended: its own running one, or one never used."""
        ti = context["ti"]
        attempt = 1
        while True:
            job_id = submission.submission_id(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, attempt)
            if not self._look(job_id).state.ended:
                return job_id
            attempt += 1

    def _result_uri(self, job_id: str) -> str:
        return submission.result_uri(get_settings(), self.dataset, job_id)

    def _inputs(self, context: Context) -> list[str]:
        if self.inputs_from is not None:
            return [uri for uri in self.inputs_from if uri]
        return [event.extra["result"] for event in _newest(context) if "result" in event.extra]

    def _dataset_of_events(self, context: Context) -> str:
        events = [] if self.inputs_from is not None else _newest(context)
        return next((event.extra["dataset"] for event in events if event.extra.get("dataset")), "")

    def _look(self, job_id: str) -> JobStatus:
        """The job's status, with patience for a Ray that does not answer just now."""
        until = time.monotonic() + self.unreachable_timeout_s
        while True:
            try:
                return self._jobs.status(job_id)
            except JobsUnreachable as e:
                if self._killed or time.monotonic() > until:
                    raise
                self.log.warning("%s; looking again", e)
                self._sleep(self.poll_interval_s)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._killed and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, KILL_NOTICE_S))

    def _end_after_kill(self, job_id: str, context: Context) -> NoReturn:
        ti = context["ti"]
        state = self._state_in_airflow(ti)
        if state not in USER_KILLED and ti.try_number <= ti.max_tries:
            raise AirflowException(f"the worker is going away; job {job_id} goes on and the retry attaches to it")
        self.log.warning("task is %s in Airflow: stopping Ray job %s", state, job_id)
        self._stop(job_id)
        raise AirflowException(f"job {job_id} was stopped with its task")

    def _state_in_airflow(self, ti: Any) -> str | None:
        states = ti.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        return next(iter(states.get(ti.run_id, {}).values()), None)

    def _stop(self, job_id: str) -> None:
        """Stop the job and see it end, so that a task that starts again at once does not attach to a dying one."""
        self._jobs.stop(job_id)
        until = time.monotonic() + STOP_WAIT_S
        while self._jobs.status(job_id).state.active and time.monotonic() < until:
            time.sleep(KILL_NOTICE_S)

    def _fail_pending(self, job_id: str, status: JobStatus) -> NoReturn:
        self._stop(job_id)
        what = "cannot start" if status.hopeless else f"could not be scheduled in {self.pending_timeout_s:.0f} s"
        raise AirflowFailException(
            f"job {job_id} {what} and was stopped. {self._place}: {status.message or 'no reason given'}"
        )

    def _raise_unless_succeeded(self, job_id: str, status: JobStatus, log_text: str) -> None:
        if status.state == JobState.SUCCEEDED:
            return
        if status.state == JobState.MISSING:
            restarted = f"Ray no longer knows job {job_id}: it was restarted; the retry sends it again"
            raise AirflowException(status.message or restarted)
        if status.state == JobState.STOPPED:
            raise AirflowException(f"job {job_id} was stopped in {self._place}. {status.message}")
        hopeless = status.hopeless or status.exit_code == WRONG_USE
        error = AirflowFailException if hopeless else AirflowException
        raise error(failure_text(log_text) or status.message)


def _newest(context: Context) -> list[Any]:
    """Of each asset that triggered the run, the newest event."""
    return [max(events, key=lambda e: e.timestamp) for events in context["triggering_asset_events"].values()]
