"""What a task sends: pure functions from the task to its job."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from components.errors import UserError
from pinloom.settings import Settings

SECRETS = {
    f"PINLOOM_{group}__{name}".upper()
    for group, settings in Settings.model_fields.items()
    for name, field in getattr(settings.annotation, "model_fields", {}).items()
    if "SecretStr" in str(field.annotation)
}
PLACES = {"PINLOOM_RAY__ADDRESS", "PINLOOM_RAY__JOBS_URL"}
"""Where Airflow finds Ray; a job is already in its own cluster."""
URL_WITH_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@")


def submission_id(dag_id: str, task_id: str, run_id: str, map_index: int, attempt: int) -> str:
    """Deterministic, so that a task started twice meets its own job; also a valid Kubernetes name."""
    digest = hashlib.sha256("\0".join([dag_id, task_id, run_id, str(map_index)]).encode()).hexdigest()[:10]
    name = re.sub(r"[^a-z0-9]+", "-", f"{dag_id}-{task_id}".lower()).strip("-")[:30]
    return f"{name}-{digest}-{attempt}"


def result_uri(settings: Settings, dataset: str, job_id: str) -> str:
    """Where the job writes its result: in the lake of its data set."""
    return f"{settings.lake_root}/{_lake_folder(dataset or settings.dataset)}/results/{job_id}.json"


def _lake_folder(dataset: str) -> str:
    """`contract.name` of a YAML, which `pinloom.datasets` reads in full; that needs more than Airflow has.

    Raises:
        UserError: the YAML is not here, or has no name.
    """
    if not dataset.endswith((".yaml", ".yml")):
        return dataset
    try:
        return str(yaml.safe_load(Path(dataset).read_text())["contract"]["name"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as e:
        remedy = "the file must be at this path in Airflow as well as in Ray; start from docs/datasets/template.yaml"
        raise UserError(f"cannot read contract.name of the data set {dataset}: {e}", remedy) from e


def entrypoint(
    command: str,
    steps: Sequence[str],
    params: Mapping[str, Any],
    dataset: str,
    inputs_from: Sequence[str],
    result: str,
) -> str:
    """The job's shell command. Empty parameters are left out: the step's own default holds. What is no text is JSON."""
    words = [*shlex.split(command), "step", *steps]
    for name, value in params.items():
        if value not in (None, "", "None"):
            words += ["--param", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    for uri in inputs_from:
        words += ["--inputs-from", uri]
    if dataset:
        words += ["--dataset", dataset]
    return shlex.join([*words, "--result", result])


def environment(settings: Settings) -> dict[str, str]:
    """Airflow's own `PINLOOM_*` variables, so that its settings hold for the job; whoever sees the job sees them.

    Not those that carry a secret, nor the job's Ray address, which is its own cluster's. The local home becomes
    absolute, as jobs run in another folder.

    A URL with a password is left out where jobs are RayJobs: their pods have it from the chart's Secret or settings.

    Raises:
        UserError: a URL has a password, and without it a job of a running Ray would use the default in its place.
    """
    env = {n: v for n, v in os.environ.items() if n.startswith("PINLOOM_") and n.upper() not in SECRETS | PLACES}
    open_secrets = sorted(name for name, value in env.items() if URL_WITH_PASSWORD.search(value))
    if open_secrets and settings.airflow.backend == "kuberay":
        env = {name: value for name, value in env.items() if name not in open_secrets}
    elif open_secrets:
        raise UserError(
            f"{', '.join(open_secrets)} has a password, which whoever sees the job would see",
            "put it into the environment of the Ray cluster, from a Secret, and take it out of Airflow's",
        )
    if settings.lake is None:
        env["PINLOOM_HOME"] = str(settings.home.resolve())
    return env
