"""A step is a function from manifests to a manifest.

Its key is its name, its integer version, the content hashes of its input manifests, its parameters and the parts of
the data set's declaration that it reads. Run again with the same key it is a no-op; lineage, resume, idempotent
retries and backfill follow from this and are not built separately.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import UserError
from pinloom.datasets import DatasetSpec
from pinloom.lake import Lake, Manifest, OutputWriter
from pinloom.lake.manifest import digest
from pinloom.settings import Settings

log = logging.getLogger("pinloom")


class Params(BaseModel):
    """Parameters of a step: part of its key. Subclass with typed fields and defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass
class StepContext:
    """What a running step may touch: its inputs, its parameters, its outputs. Nothing else of the lake.

    Attributes:
        spec: the data set as the step's features saw it; `declared` as its YAML has it.
    """

    lake: Lake
    settings: Settings
    spec: DatasetSpec
    declared: DatasetSpec
    step: str
    key: str
    params: Any
    inputs: dict[str, Manifest]
    now: datetime
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    metrics: dict[str, Any] = field(default_factory=dict)
    writers: dict[str, OutputWriter] = field(default_factory=dict)

    def input(self, name: str) -> Manifest:
        return self.inputs[name]

    def output(self, name: str) -> OutputWriter:
        """Writer of one output; the same object each time it is asked for."""
        if name not in self.writers:
            self.writers[name] = self.lake.writer(self.step, self.key, name, self.attempt)
        return self.writers[name]

    def spec_of(self, features: Manifest) -> DatasetSpec:
        """The data set as another snapshot saw it."""
        return self.declared.as_of(snapshot_day(features))

    @cached_property
    def scratch(self) -> Path:
        """A local folder for libraries that write only local files; gone when the step ends."""
        return Path(self._scratch.name)

    @cached_property
    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix=f"pinloom-{self.step}-")

    def close(self) -> None:
        if "_scratch" in self.__dict__:
            self._scratch.cleanup()


@dataclass
class World:
    """What `complete` may look at, as it is now. An input that it reads is the one that the step will read.

    Attributes:
        given: manifests by input name, which come before the pointers.
    """

    lake: Lake
    settings: Settings
    spec: DatasetSpec
    step: Step
    given: dict[str, Manifest]

    def input(self, name: str, params: Params) -> Manifest:
        """An input that is not optional.

        Raises:
            UserError: nothing is given, and its pointer names nothing.
        """
        if name not in self.given:
            pointer = self.step.pointers(params)[name]
            self.given[name] = self.lake.require(pointer.format(**params.model_dump()))
        return self.given[name]


@dataclass(frozen=True)
class Step:
    """One unit of work.

    Attributes:
        version: raised by hand when the meaning of the outputs changes.
        inputs: input name → pointer it resolves to when no manifest is given. `{recipe}` and other parameter names
            in braces are filled in. A trailing `?` makes the input optional; `a|b` is the first that names anything.
            Where the inputs depend on the parameters (a recipe reads more), a function of them.
        advances: pointer moved to the manifest on success ('' = none); parameter names in braces allowed.
        reads: fields of the data set's declaration that are part of the key ('contract', 'source', …).
        complete: fills parameters that depend on the world (what a source holds today) before the key is computed.
        commit: run after the manifest is published, also when it already was: brings the world outside the
            manifest (table pointers, stores, registries, deployments) to the state that it promises. Idempotent.
        stands_for: a step whose outputs this one's manifest has too: later steps of the job, and those that read its
            result, get it under that name as well.
    """

    name: str
    version: int
    run: Callable[[StepContext], None]
    params: type[Params] = Params
    inputs: dict[str, str] | Callable[[Any], dict[str, str]] = field(default_factory=dict)
    advances: str = ""
    reads: tuple[str, ...] = ()
    complete: Callable[[Any, World], Params] | None = None
    commit: Callable[[StepContext, Manifest], None] | None = None
    stands_for: str = ""

    def pointers(self, params: Params) -> dict[str, str]:
        """Input name → pointer."""
        return self.inputs(params) if callable(self.inputs) else self.inputs


MODULES = {
    "ingest": "pinloom.steps.ingest",
    "validate": "pinloom.steps.validate",
    "features": "pinloom.steps.features",
    "index": "pinloom.steps.index",
    "materialize": "pinloom.steps.materialize",
    "graph": "pinloom.steps.graph",
    "neighbourhoods": "pinloom.steps.neighbourhoods",
    "train": "pinloom.steps.train",
    "embed": "pinloom.steps.embed",
    "evaluate": "pinloom.steps.evaluate",
    "promote": "pinloom.steps.promote",
    "deploy": "pinloom.steps.deploy",
}
"""Where each step lives: imported only when it runs, so that a step pays for what it needs alone."""


def load_step(name: str) -> Step:
    if name not in MODULES:
        raise UserError(f"there is no step '{name}'", f"one of: {', '.join(MODULES)}")
    step: Step = importlib.import_module(MODULES[name]).STEP
    return step


def resolve_inputs(step: Step, lake: Lake, params: Params, given: dict[str, Manifest]) -> dict[str, Manifest]:
    """Given manifests first, else what the pointers name now."""
    values = params.model_dump()
    resolved: dict[str, Manifest] = {}
    for name, pointer in step.pointers(params).items():
        names = pointer.removesuffix("?").format(**values).split("|")
        found = given.get(name) or next(filter(None, map(lake.latest, names)), None)
        if found is not None:
            resolved[name] = found
        elif not pointer.endswith("?"):
            lake.require(names[-1])
    return resolved


def parse_params(step: Step, raw: dict[str, Any]) -> Params:
    try:
        return step.params.model_validate(raw)
    except ValidationError as e:
        problems = "; ".join(f"{'.'.join(map(str, err['loc']))}: {err['msg']}" for err in e.errors())
        known = ", ".join(step.params.model_fields) or "none"
        raise UserError(f"step '{step.name}': {problems}", f"parameters it takes: {known}") from e


def run_step(
    step: Step,
    *,
    lake: Lake,
    settings: Settings,
    spec: DatasetSpec,
    params: dict[str, Any] | None = None,
    inputs: dict[str, Manifest] | None = None,
) -> Manifest:
    """Run `step` unless a manifest with its key exists; then bring its effects about; then move its pointer."""
    parsed = parse_params(step, params or {})
    world = World(lake, settings, spec, step, dict(inputs or {}))
    if step.complete is not None:
        parsed = step.complete(parsed, world)
    resolved = resolve_inputs(step, lake, parsed, world.given)
    refs = {name: {"uri": m.uri, "sha256": m.content_hash()} for name, m in resolved.items()}
    declared = {name: spec.declaration(name) for name in step.reads}
    said = {
        "step": step.name,
        "version": step.version,
        "params": parsed.model_dump(mode="json"),
        "inputs": {k: v["sha256"] for k, v in refs.items()},
        "declared": declared,
    }
    ctx = StepContext(
        lake=lake,
        settings=settings,
        spec=_as_of(spec, resolved),
        declared=spec,
        step=step.name,
        key=digest(said),
        params=parsed,
        inputs=resolved,
        now=datetime.now(UTC),
    )
    try:
        manifest = lake.find(step.name, ctx.key)
        if manifest is None:
            manifest = _run_fresh(step, ctx, refs)
        else:
            log.info("%s: already published as %s", step.name, manifest.uri)
        if step.commit is not None:
            step.commit(ctx, manifest)
        if step.advances:
            final = manifest
            lake.advance(step.advances.format(**parsed.model_dump()), lambda _: final)
    finally:
        ctx.close()
    return manifest


def _as_of(spec: DatasetSpec, inputs: dict[str, Manifest]) -> DatasetSpec:
    """The data set as the features that the step reads saw it; a step that reads none sees it as declared."""
    features = inputs.get("features")
    return spec if features is None else spec.as_of(snapshot_day(features))


def validation_day(spec: DatasetSpec, snapshot: date) -> date:
    """First day of the validation split of a snapshot of that day."""
    return spec.as_of(snapshot).contract.splits.interval("validation")[0].date()


def snapshot_day(features: Manifest) -> date:
    """The midnight at which the log of a snapshot ends."""
    return date.fromisoformat(features.metrics["as_of"])


def _run_fresh(step: Step, ctx: StepContext, refs: dict[str, dict[str, str]]) -> Manifest:
    started = time.perf_counter()
    log.info("%s: started, key %s", step.name, ctx.key)
    step.run(ctx)
    seconds = time.perf_counter() - started
    manifest = ctx.lake.publish(
        Manifest(
            step=step.name,
            version=step.version,
            key=ctx.key,
            created_at=ctx.now,
            code_version=package_version("pinloom"),
            inputs=refs,
            params=ctx.params.model_dump(mode="json"),
            outputs={name: w.output() for name, w in ctx.writers.items()},
            metrics=ctx.metrics,
            seconds={"work": round(seconds, 3)},
        )
    )
    log.info("%s: published %s in %.1f s", step.name, manifest.uri, seconds)
    return manifest
