"""One job runs one or more steps in one process: steps that are mostly start-up share it, one manifest each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import fsspec

from components.errors import UserError
from pinloom.datasets import load_dataset
from pinloom.lake import Lake, Manifest
from pinloom.settings import Settings, get_settings
from pinloom.steps.base import load_step, parse_params, run_step


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

    A parameter goes to each step of the job that knows it; a parameter or input that no step knows is an error.
    Manifests given by `inputs` (name → URI) come before those of `inputs_from` (results of earlier jobs), these
    before the pointers. The result ({"manifests": {step: URI}, "seconds": …}) is also written to `result_uri`.
    """
    settings = settings or get_settings()
    spec = load_dataset(dataset or settings.dataset)
    lake = open_lake(settings, spec.name)
    steps = [load_step(name) for name in names]
    _refuse_unknown("parameter", params or {}, {f for s in steps for f in s.params.model_fields}, names)
    known = [{k: v for k, v in (params or {}).items() if k in s.params.model_fields} for s in steps]
    read = {i for s, own in zip(steps, known, strict=True) for i in s.pointers(parse_params(s, own))}
    _refuse_unknown("input", inputs or {}, read, names)
    uris = {k: v for uri in inputs_from or [] for k, v in _published(lake, uri).items()} | (inputs or {})
    given = {name: _manifest(lake, uri) for name, uri in uris.items()}
    result: dict[str, Any] = {
        "manifests": {},
        "seconds": {"startup": round(time.time() - (started or time.time()), 3)},
    }
    for step, own in zip(steps, known, strict=True):
        began = time.perf_counter()
        manifest = run_step(step, lake=lake, settings=settings, spec=spec, params=own, inputs=given)
        for name in filter(None, (step.name, step.stands_for)):
            given[name] = manifest
            result["manifests"][name] = manifest.uri
        result["seconds"][step.name] = round(time.perf_counter() - began, 3)
    if result_uri:
        _write(result_uri, json.dumps(result).encode())
    return result


def _manifest(lake: Lake, uri: str) -> Manifest:
    """A manifest of this lake: what was made of another data set is no input here, though names and types agree."""
    manifest = lake.manifest(uri)
    if not uri.startswith(f"{lake.root}/"):
        raise UserError(
            f"{uri} is not in this data set's lake {lake.root}",
            "give a manifest of the same data set, or name its data set with --dataset (`dataset` of a DAG run)",
        )
    return manifest


def _published(lake: Lake, uri: str) -> dict[str, str]:
    """Step → manifest URI of the result of an earlier job."""
    content = lake.read_bytes(uri)
    try:
        manifests: dict[str, str] = json.loads(content)["manifests"]
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{uri} is not the result of a job", "give a URI that a job wrote with --result") from e
    return manifests


def _write(uri: str, content: bytes) -> None:
    fs, path = fsspec.core.url_to_fs(uri)
    fs.makedirs(fs._parent(path), exist_ok=True)
    fs.pipe_file(path, content)


def _refuse_unknown(what: str, given: Iterable[str], known: set[str], names: list[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise UserError(
            f"no step of '{' '.join(names)}' takes the {what} {', '.join(unknown)}",
            f"{what}s they take: {', '.join(sorted(known)) or 'none'}",
        )
