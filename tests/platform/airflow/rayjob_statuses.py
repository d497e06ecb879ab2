"""Statuses of RayJobs in the order in which KubeRay 1.6's `rayjob_controller.go` writes them."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
CLUSTER = "job-x7k2p"
FAILED_2 = (
    "Job entrypoint command failed with exit code 2, last available logs (truncated to 20,000 chars):\n"
    "pinloom: no such column\n  remedy: another\n"
)


def at(deployment: str, job: str = "", **fields: str) -> Object:
    base = {"jobId": "job-abcde", "rayClusterName": CLUSTER, "dashboardURL": "", "message": ""}
    return {**base, "jobDeploymentStatus": deployment, "jobStatus": job, **fields}


NEW: Object = {}
INITIALIZING = at("Initializing")
SUBMITTED = at("Running")
PENDING = at("Running", "PENDING")
RUNNING = at("Running", "RUNNING")
COMPLETE = at("Complete", "SUCCEEDED", message="Job finished successfully.")
APP_FAILED = at("Failed", "FAILED", reason="AppFailed", message=FAILED_2)
SUCCESS = [NEW, INITIALIZING, INITIALIZING, SUBMITTED, PENDING, RUNNING, COMPLETE]
GONE: Object = {"deleted": True}
INVALID = at(
    "ValidationFailed", reason="ValidationFailed", message="one of RayClusterSpec or ClusterSelector must be set"
)
DEADLINE = at(
    "Failed",
    "RUNNING",
    reason="DeadlineExceeded",
    message="The RayJob has passed the activeDeadlineSeconds. StartTime: 05:00. ActiveDeadlineSeconds: 60",
)
SUBMISSION_FAILED = at(
    "Failed", reason="SubmissionFailed", message="Job submission has failed. Reason: BackoffLimitExceeded."
)
SUBMITTER_LATE = at("Running", "SUCCEEDED", message="Job finished successfully.")
RETRYING = at("Retrying", "FAILED", reason="AppFailed", message=FAILED_2)


def pod(
    name: str, *, waiting: str = "", message: str = "", unschedulable: str = "", labels: Object | None = None
) -> Object:
    """A pod of the job's cluster as the kubelet or the scheduler leaves it."""
    status: Object = {"phase": "Pending"}
    if unschedulable:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}
        status["conditions"] = [condition]
    if waiting:
        state = {"waiting": {"reason": waiting, "message": message}}
        status["containerStatuses"] = [{"name": "ray-head", "image": "pinloom-ray:0.1", "state": state}]
    return {"metadata": {"name": name, "labels": labels or {"ray.io/cluster": CLUSTER}}, "status": status}


def event(uid: str, kind: str, name: str, reason: str, message: str, count: int = 1) -> Object:
    return {
        "metadata": {"name": uid, "uid": uid},
        "involvedObject": {"kind": kind, "name": name},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "count": count,
    }
