"""One job runs one or more steps in one process: steps that are mostly start-up share it, one manifest each."""

from __future__ import annotations

import json
import time
from typing import Any

from pinloom.datasets import load_dataset
from pinloom.lake import Lake, Manifest
from pinloom.settings import Settings, get_settings
from pinloom.steps.base import load_step, run_step


def open_lake(settings: Settings, dataset_name: str) -> Lake:
    """The lake of one data set: a folder of its own under the root."""
    return Lake(f"{settings.lake_root}/{dataset_name}")


def run_job(
    names: list[str],
    *,
    params: dict[str, Any] | None = None,
    inputs: dict[str, str] | None = None,
    inputs_from: list[str] | None = None,
    dataset: str | None = None,
    result_uri: str | None = None,
    started: float | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Run steps in order; a later one reads what an earlier one of the job published, by name.

    A parameter goes to each step of the job that knows it; one that no step knows is an error.
    Manifests given by `inputs` (name → URI) come before those of `inputs_from` (results of earlier jobs), these
    before the pointers. The result ({"manifests": {step: URI}, "seconds": …}) is also written to `result_uri`.
    """
    settings = settings or get_settings()
    spec = load_dataset(dataset or settings.dataset)
    lake = open_lake(settings, spec.name)
    steps = [load_step(name) for name in names]
    _refuse_unknown(params or {}, {f for s in steps for f in s.params.model_fields}, names)
    given: dict[str, Manifest] = {}
    for uri in inputs_from or []:
        given.update({k: lake.manifest(v) for k, v in json.loads(lake.read_bytes(uri))["manifests"].items()})
    given.update({k: lake.manifest(v) for k, v in (inputs or {}).items()})
    result: dict[str, Any] = {
        "manifests": {},
        "seconds": {"startup": round(time.time() - (started or time.time()), 3)},
    }
    for step in steps:
        began = time.perf_counter()
        known = {k: v for k, v in (params or {}).items() if k in step.params.model_fields}
        manifest = run_step(step, lake=lake, settings=settings, spec=spec, params=known, inputs=given)
        given[step.name] = manifest
        result["manifests"][step.name] = manifest.uri
        result["seconds"][step.name] = round(time.perf_counter() - began, 3)
    if result_uri:
        lake.fs.makedirs(result_uri.rsplit("/", 1)[0], exist_ok=True)
        lake.fs.pipe_file(result_uri, json.dumps(result).encode())
    return result


def _refuse_unknown(params: dict[str, Any], known: set[str], names: list[str]) -> None:
    from components.errors import UserError

    unknown = sorted(set(params) - known)
    if unknown:
        raise UserError(
            f"no step of '{' '.join(names)}' has a parameter {', '.join(unknown)}",
            f"they take: {', '.join(sorted(known)) or 'none'}",
        )
