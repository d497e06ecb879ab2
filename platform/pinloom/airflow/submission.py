"""What a task sends: pure functions from the task to its job."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pinloom.settings import Settings

SECRETS = {
    f"PINLOOM_{group}__{name}".upper()
    for group, settings in Settings.model_fields.items()
    for name, field in getattr(settings.annotation, "model_fields", {}).items()
    if "SecretStr" in str(field.annotation)
}
URL_WITH_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@")


def submission_id(dag_id: str, task_id: str, run_id: str, map_index: int, attempt: int) -> str:
    """Deterministic, so that a task started twice meets its own job; also a valid Kubernetes name."""
    digest = hashlib.sha256("\0".join([dag_id, task_id, run_id, str(map_index)]).encode()).hexdigest()[:10]
    name = re.sub(r"[^a-z0-9]+", "-", f"{dag_id}-{task_id}".lower()).strip("-")[:30]
    return f"{name}-{digest}-{attempt}"


def result_uri(settings: Settings, dataset: str, job_id: str) -> str:
    """Where the job writes its result: beside the lake of its data set (a YAML's file name names it)."""
    name = dataset or settings.dataset
    folder = PurePath(name).stem if name.endswith((".yaml", ".yml")) else name
    return f"{settings.lake_root}/{folder}/results/{job_id}.json"


def entrypoint(
    command: str,
    steps: Sequence[str],
    params: Mapping[str, Any],
    dataset: str,
    inputs_from: Sequence[str],
    result: str,
) -> str:
    """The job's shell command. Empty parameters are left out: the step's own default holds."""
    words = [*shlex.split(command), "step", *steps]
    for name, value in params.items():
        if value not in (None, "", "None"):
            words += ["--param", f"{name}={value}"]
    for uri in inputs_from:
        words += ["--inputs-from", uri]
    if dataset:
        words += ["--dataset", dataset]
    return shlex.join([*words, "--result", result])


def environment(settings: Settings) -> dict[str, str]:
    """Airflow's own `PINLOOM_*` variables, so that its settings hold for the job; whoever sees the job sees them.

    Not those that may carry a secret, nor the job's Ray address, which is its own cluster's. The local home becomes
    absolute, as jobs run in another folder.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PINLOOM_") and not name.startswith("PINLOOM_RAY__") and not _secret(name, value)
    }
    if settings.lake is None:
        env["PINLOOM_HOME"] = str(settings.home.resolve())
    return env


def _secret(name: str, value: str) -> bool:
    return name.upper() in SECRETS or URL_WITH_PASSWORD.search(value) is not None
