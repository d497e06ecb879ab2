"""Where jobs run, seen from Airflow: submit, look, read the log, stop, all by an id that the caller chose.

The Ray Jobs API is one such place (`pinloom.airflow.ray_jobs`), RayJobs on Kubernetes another (`.kuberay`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class JobState(StrEnum):
    """The states of the Ray Jobs API, and MISSING: the place does not know the id (never sent, or it restarted)."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    MISSING = "MISSING"

    @property
    def active(self) -> bool:
        return self in (JobState.PENDING, JobState.RUNNING)

    @property
    def ended(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)


@dataclass(frozen=True)
class Job:
    """What is sent.

    Attributes:
        submission_id: chosen by the caller; a second job of the same id is refused.
        entrypoint: one shell command.
        env: environment variables, seen by everyone who may look at the job: no secrets.
        metadata: where it came from, for people.
        cpus: logical CPUs reserved for the entrypoint itself.
    """

    submission_id: str
    entrypoint: str
    env: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    cpus: float = 0.0


@dataclass(frozen=True)
class JobStatus:
    """What is known.

    Attributes:
        message: the place's own words.
        exit_code: of the entrypoint, when it ended.
        hopeless: only a person's change helps: another try fails alike, and what waits goes on waiting.
    """

    state: JobState
    message: str = ""
    exit_code: int | None = None
    hopeless: bool = False


class JobsError(RuntimeError):
    """The place answered, but not with what was asked for."""


class JobsUnreachable(JobsError):
    """The place did not answer: it may in a moment."""


class JobsRefused(JobsError):
    """The place does not take such a job: trying again does not help."""


class JobsUnauthorized(JobsRefused):
    """The place wants another token."""


class JobBackend(Protocol):
    """A place where jobs run. Every method may raise a `JobsError`."""

    def submit(self, job: Job) -> None:
        """Send a job. When its id is known already, that job is the one: nothing happens."""

    def status(self, submission_id: str) -> JobStatus: ...

    def logs(self, submission_id: str) -> str:
        """All that the job has printed so far ('' before it printed anything, or when it is unknown)."""

    def stop(self, submission_id: str) -> None:
        """Ask for the job's end and return at once; nothing when it has ended or is unknown."""
