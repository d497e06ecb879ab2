"""What a RayJob's status means: the job's (Ray's words) and the deployment's (KubeRay's words) taken together.

KubeRay 1.6: `rayjob_types.go`, `rayjob_controller.go`. The job's status can be that of an earlier look, the
deployment's `ValidationFailed` never becomes `Failed`, and a deadline leaves the job's status as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pinloom.airflow.jobs import JobState, JobStatus

Object = dict[str, Any]
ENDED = {state.value: state for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)}
EXIT_CODE = re.compile(r"exit code (\d+)")
STUCK = {"ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"}
"""Why a container waits that only a person's change ends. `ErrImagePull` is the first failure and tried again."""
BUSY = "timed out waiting for the condition"
"""What a kubelet says, as a `CreateContainerConfigError`, that has not yet been told of a Secret or ConfigMap."""


def status_of(rayjob: Object) -> JobStatus:
    status = rayjob.get("status") or {}
    job, deployment = status.get("jobStatus", ""), status.get("jobDeploymentStatus", "")
    said = status.get("message", "")
    if rayjob["metadata"].get("deletionTimestamp"):
        return JobStatus(JobState.STOPPED, "The RayJob was deleted in Kubernetes.")
    if deployment == "ValidationFailed":
        return JobStatus(JobState.FAILED, f"KubeRay refuses the RayJob: {said}", hopeless=True)
    if deployment == "Retrying":
        # KubeRay's own retry (backoffLimit): the job's status is that of the cluster that is going away.
        return JobStatus(JobState.PENDING, f"KubeRay tries again: {said}")
    if job in ENDED:
        return JobStatus(ENDED[job], said, _exit_code(ENDED[job], said))
    if deployment == "Failed":
        return JobStatus(JobState.FAILED, f"{status.get('reason') or 'Failed'}: {said}")
    if deployment == "Complete":
        return JobStatus(JobState.FAILED, f"KubeRay completed the RayJob without Ray's word on the job. {said}")
    if deployment == "Running" and job == "RUNNING":
        return JobStatus(JobState.RUNNING, said)
    return JobStatus(JobState.PENDING, said or f"The RayJob is {deployment or 'new'}.")


def _exit_code(state: JobState, said: str) -> int | None:
    if state == JobState.SUCCEEDED:
        return 0
    found = EXIT_CODE.search(said)
    return int(found[1]) if found else None


def waiting(pods: list[Object], pending: JobStatus) -> JobStatus:
    """A pending job's status with what its pods wait for, the worst first."""
    reasons = sorted((reason for pod in pods for reason in _reasons(pod)), reverse=True)
    if not reasons:
        return pending
    hopeless, text = reasons[0]
    return JobStatus(JobState.PENDING, text, hopeless=hopeless)


def _reasons(pod: Object) -> Iterator[tuple[bool, str]]:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield False, f"{name} cannot be scheduled: {condition.get('message', condition.get('reason', ''))}"
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state = container.get("state", {}).get("waiting", {})
        reason = state.get("reason", "")
        if reason in STUCK or reason.startswith(("Err", "CrashLoop")):
            message = state.get("message", "")
            hopeless = reason in STUCK and BUSY not in message
            yield hopeless, f"{name}, {container['image']}: {reason}. {message}".strip()
