"""The Ray Jobs API over plain REST, so that Airflow's image needs no Ray."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import requests

from pinloom.airflow.jobs import (
    Job,
    JobsError,
    JobState,
    JobStatus,
    JobsUnauthorized,
    JobsUnreachable,
)

log = logging.getLogger(__name__)

MISSING = JobStatus(JobState.MISSING)


class RayJobs:
    """One Ray head's Jobs API.

    Args:
        url: of the dashboard, like `http://127.0.0.1:8265`.
        token: bearer token; Ray answers 401 without one when authentication is on.
        timeout_s: of one request.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._session = requests.Session()
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def submit(self, job: Job) -> None:
        body = {
            "submission_id": job.submission_id,
            "entrypoint": job.entrypoint,
            "runtime_env": {"env_vars": job.env},
            "metadata": job.metadata,
            "entrypoint_num_cpus": job.cpus,
        }
        try:
            if self._request("POST", "/api/jobs/", json=body) is None:
                raise JobsError(f"{self.url} is no Ray Jobs API: it answered POST /api/jobs/ with 404")
        except JobsUnauthorized:
            raise
        except JobsError as e:
            # Ray answers a known id with 500, like any bug of its own, and an answer may be lost on its way: look.
            if self.status(job.submission_id) == MISSING:
                raise
            log.info("job %s is known to Ray already: attaching to it (%s)", job.submission_id, str(e).split("\n")[0])

    def status(self, submission_id: str) -> JobStatus:
        info = self._request("GET", f"/api/jobs/{submission_id}")
        if info is None:
            return MISSING
        return JobStatus(JobState(info["status"]), info.get("message") or "", info.get("driver_exit_code"))

    def logs(self, submission_id: str) -> str:
        answer = self._request("GET", f"/api/jobs/{submission_id}/logs")
        return str(answer["logs"]) if answer else ""

    def stop(self, submission_id: str) -> None:
        self._request("POST", f"/api/jobs/{submission_id}/stop")

    def _request(self, method: str, path: str, **kwargs: Any) -> Any:
        """The JSON answer; None when Ray does not know the job (404)."""
        try:
            response = self._session.request(method, self.url + path, timeout=self.timeout_s, **kwargs)
        except (requests.ConnectionError, requests.Timeout) as e:
            raise JobsUnreachable(f"no Ray Jobs API answers at {self.url}: {type(e).__name__}") from e
        if response.status_code == HTTPStatus.NOT_FOUND:
            return None
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise JobsUnauthorized(
                f"Ray at {self.url} refused the token ({response.status_code}): set PINLOOM_RAY__TOKEN, or the "
                "password of the operator's connection, to the cluster's RAY_AUTH_TOKEN"
            )
        if not response.ok:
            raise JobsError(f"Ray answered {method} {path} with {response.status_code}: {response.text[-2000:]}")
        return response.json()
