"""RayJobs of KubeRay as a place where jobs run: one custom resource for each, a cluster of its own or a shared one."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from pinloom.airflow.jobs import Job, JobsError, JobsRefused, JobState, JobStatus, JobsUnauthorized, JobsUnreachable
from pinloom.airflow.ray_jobs import RayJobs
from pinloom.airflow.rayjob_status import Object, status_of, waiting
from pinloom.kube import KubeApi, KubeError, KubeUnreachable
from pinloom.settings import Settings

log = logging.getLogger(__name__)

SUBMITTER = "ray-job-submitter"
"""Container of KubeRay's that prints the job's log, where there is one."""


class KubeRayJobs:
    """RayJobs in one namespace; a job's id is the name of its RayJob.

    Args:
        settings: `kubernetes` says where the cluster and the templates are, `ray.token` opens the heads' dashboards.
        step: the first step of the task; a template `<step>.yaml` is preferred to `default.yaml`.
        spec: fields of the RayJob's spec, merged over the template's. KubeRay's own words, all of them.

    Raises:
        JobsRefused: neither a template nor a spec says what cluster the job gets, or there is no cluster to ask.
    """

    def __init__(self, settings: Settings, step: str = "", spec: Mapping[str, Any] | None = None) -> None:
        with _as_jobs_error():
            self.api = KubeApi(settings.kubernetes)
        self._token = settings.ray.token.get_secret_value() if settings.ray.token else None
        self._template = load_template(settings.kubernetes.rayjobs, step)
        self._spec = merged(self._template.get("spec") or {}, spec or {})
        self._logs: dict[str, str] = {}
        self._events_seen: set[tuple[str, int]] = set()
        if not self._spec:
            raise JobsRefused("no RayJob to send: set PINLOOM_KUBERNETES__RAYJOBS, or the operator's rayjob_spec")

    def submit(self, job: Job) -> None:
        with _as_jobs_error():
            if not self.api.create(self.api.ray("rayjobs"), self.body(job)):
                log.info("RayJob %s exists already: attaching to it", job.submission_id)

    def status(self, submission_id: str) -> JobStatus:
        with _as_jobs_error():
            rayjob = self.api.get(self.api.ray("rayjobs", submission_id))
            if rayjob is None:
                gone = f"There is no RayJob {submission_id} in Kubernetes: it was deleted. The next try sends it again."
                return JobStatus(JobState.MISSING, gone)
            status = status_of(rayjob)
            if status.state == JobState.RUNNING:
                return status
            pods = self._pods(rayjob)
            self._tell_events(rayjob, pods)
            return waiting(pods, status) if status.state == JobState.PENDING else status

    def logs(self, submission_id: str) -> str:
        """What the job printed. The cluster may be gone or out of reach: then what was read before."""
        try:
            with _as_jobs_error():
                text = self._read_log(submission_id)
        except JobsError as e:
            log.debug("log of %s: %s", submission_id, e)
            text = ""
        self._logs[submission_id] = text or self._logs.get(submission_id, "")
        return self._logs[submission_id]

    def stop(self, submission_id: str) -> None:
        """Delete the RayJob: KubeRay stops the job and takes its cluster down."""
        with _as_jobs_error():
            self.api.delete(self.api.ray("rayjobs", submission_id))

    def body(self, job: Job) -> Object:
        """The custom resource of a job."""
        metadata = self._template.get("metadata") or {}
        labels = {
            "app.kubernetes.io/managed-by": "pinloom",
            **{f"pinloom.io/{k}": _label(v) for k, v in job.metadata.items()},
        }
        spec = {
            **self._spec,
            "entrypoint": job.entrypoint,
            "runtimeEnvYAML": _runtime_env(self._spec.get("runtimeEnvYAML", ""), job.env),
            "metadata": {**self._spec.get("metadata", {}), **job.metadata},
        }
        if job.cpus:
            spec["entrypointNumCpus"] = job.cpus
        return {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {
                "name": job.submission_id,
                "namespace": self.api.namespace,
                "labels": {**metadata.get("labels", {}), **labels},
                "annotations": {
                    **metadata.get("annotations", {}),
                    **{f"pinloom.io/{k}": v for k, v in job.metadata.items()},
                },
            },
            "spec": spec,
        }

    def _pods(self, rayjob: Object) -> list[Object]:
        cluster = rayjob.get("status", {}).get("rayClusterName")
        if not cluster:
            return []
        found = self.api.get(self.api.core("pods"), labelSelector=f"ray.io/cluster={cluster}")
        return list(found["items"]) if found else []

    def _tell_events(self, rayjob: Object, pods: list[Object]) -> None:
        """Kubernetes' events of the job, its cluster and its pods, each once, into the task's log."""
        cluster = rayjob.get("status", {}).get("rayClusterName")
        names = [rayjob["metadata"]["name"], *([cluster] if cluster else []), *(p["metadata"]["name"] for p in pods)]
        for name in names:
            found = self.api.get(self.api.core("events"), fieldSelector=f"involvedObject.name={name}")
            for event in found["items"] if found else []:
                key = (event["metadata"].get("uid", event["metadata"]["name"]), event.get("count") or 1)
                if key not in self._events_seen:
                    self._events_seen.add(key)
                    what = event["involvedObject"]
                    level = logging.WARNING if event.get("type") == "Warning" else logging.INFO
                    log.log(
                        level, "%s %s: %s. %s", what["kind"], what["name"], event["reason"], event.get("message", "")
                    )

    def _read_log(self, submission_id: str) -> str:
        rayjob = self.api.get(self.api.ray("rayjobs", submission_id))
        status = (rayjob or {}).get("status") or {}
        mode = self._spec.get("submissionMode", "K8sJobMode")
        if mode == "K8sJobMode":
            return self._pod_log(f"job-name={submission_id}")
        if mode == "SidecarMode":
            return self._pod_log(f"ray.io/cluster={status.get('rayClusterName')},ray.io/node-type=head")
        if not status.get("dashboardURL") or not status.get("jobId"):
            return ""
        return RayJobs(f"http://{status['dashboardURL']}", self._token).logs(status["jobId"])

    def _pod_log(self, selector: str) -> str:
        found = self.api.get(self.api.core("pods"), labelSelector=selector)
        pods = sorted(found["items"] if found else [], key=lambda pod: pod["metadata"].get("creationTimestamp", ""))
        if not pods:
            return ""
        return self.api.text(self.api.core("pods", pods[-1]["metadata"]["name"]) + "/log", container=SUBMITTER)


def load_template(folder: Path | None, step: str) -> Object:
    """`<step>.yaml` of the folder, else `default.yaml`; {} without a folder.

    Raises:
        JobsRefused: the folder has neither, or the file is no RayJob.
    """
    if folder is None:
        return {}
    path = next((p for p in (folder / f"{step}.yaml", folder / "default.yaml") if p.is_file()), None)
    if path is None:
        raise JobsRefused(f"{folder} has neither {step}.yaml nor default.yaml (PINLOOM_KUBERNETES__RAYJOBS)")
    template = yaml.safe_load(path.read_text())
    if not isinstance(template, dict) or template.get("kind") != "RayJob":
        raise JobsRefused(f"{path} is no RayJob: it must have `kind: RayJob` and a `spec`")
    return template


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Object:
    """Maps merged field by field; lists and single values are replaced."""
    both = dict(under)
    for key, value in over.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def _runtime_env(text: str, env: Mapping[str, str]) -> str:
    """The template's runtime environment with the job's variables."""
    return yaml.safe_dump(merged(yaml.safe_load(text) or {}, {"env_vars": dict(env)}), sort_keys=True)


def _label(text: str) -> str:
    """The nearest valid value of a label."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.")


@contextmanager
def _as_jobs_error() -> Iterator[None]:
    try:
        yield
    except KubeUnreachable as e:
        raise JobsUnreachable(str(e)) from e
    except KubeError as e:
        if e.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise JobsUnauthorized(f"{e}. The task's service account needs rights on rayjobs, pods and events") from e
        if e.status in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, 0):
            raise JobsRefused(str(e)) from e
        raise JobsError(str(e)) from e
