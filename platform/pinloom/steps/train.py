"""`train`: a recipe learns from the features, distributed, and leaves an artifact, its curves and an MLflow run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from typing import Any

from pydantic import Field

from components.recipe import load_recipe, resolve
from pinloom.lake import Manifest
from pinloom.ray_cluster import connect
from pinloom.registry import Registry
from pinloom.steps.base import Params, Step, StepContext, World
from pinloom.training.curves import write_curves
from pinloom.training.distributed import Points, Trained, run_distributed
from pinloom.training.job import RecipeJob
from pinloom.training.progress import Progress
from pinloom.training.storage import Storage
from pinloom.training.tracking import Tracker

log = logging.getLogger("pinloom.training")


class TrainParams(Params):
    """
    Attributes:
        flavour: of the recipe's config: 'default' or 'debug'.
        overrides: single fields of that config; in the key all of them, so that new defaults are another training.
        workers: instead of `settings.training.workers`.
    """

    recipe: str
    flavour: str = "default"
    overrides: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    workers: int | None = Field(default=None, ge=1)


def complete(params: TrainParams, world: World) -> TrainParams:
    config = resolve(load_recipe(params.recipe), params.flavour, params.overrides)
    return params.model_copy(update={"overrides": asdict(config)})


def run(ctx: StepContext) -> None:
    params: TrainParams = ctx.params
    Registry(ctx.settings, ctx.spec.name).require()
    job = RecipeJob(
        recipe=load_recipe(params.recipe),
        contract=ctx.spec.contract,
        features=ctx.input("features"),
        lake_root=ctx.lake.root,
        flavour=params.flavour,
        overrides=params.overrides,
        seed=params.seed,
        extras=tuple(ctx.input(name) for name in load_recipe(params.recipe).extra_inputs),
    )
    config = job().config
    connect(ctx.settings)
    with _tracked(ctx, {**asdict(config), "flavour": params.flavour, "seed": params.seed}) as tracker:
        began = time.time()
        trained = _train(ctx, job, tracker)
        artifact = trained.download(ctx.scratch / "checkpoint")
        for file in sorted(f for f in artifact.rglob("*") if f.is_file()):
            ctx.output("artifact").upload(file, name=str(file.relative_to(artifact)))
        curves = write_curves(trained.run.curve, ctx.scratch)
        for file in curves:
            ctx.output("curves").upload(file)
        tracker().log(trained.run.curve)
        tracker().artifacts(*curves, artifact / "artifact.json")
        ctx.metrics.update(_metrics(trained, began))


@contextmanager
def _tracked(ctx: StepContext, config: dict[str, Any]) -> Iterator[Callable[[], Tracker]]:
    """The MLflow run of this step's key, ended whatever happens once it is open.

    Importing and opening MLflow takes seconds: it waits for the first point of the curve, when the workers are up.
    """
    registry = Registry(ctx.settings, ctx.spec.name)

    @cache
    def tracker() -> Tracker:
        return Tracker.open(registry, ctx.key, ctx.params.recipe, config, ctx.input("features"))

    try:
        yield tracker
    except BaseException:
        if tracker.cache_info().currsize:
            _end_failed(tracker())
        raise
    tracker().end("FINISHED")


def _end_failed(tracker: Tracker) -> None:
    """What made the training fail is to be told, not that MLflow fails as well."""
    try:
        tracker.end("FAILED")
    except Exception:
        log.exception("the MLflow run %s could not be marked as failed", tracker.run_id)


def _train(ctx: StepContext, job: RecipeJob, tracker: Callable[[], Tracker]) -> Trained:
    progress = Progress(f"train {job.recipe.name}", ctx.settings.training.log_every_s)

    def watch(points: Points) -> None:
        for point, total_steps in points:
            progress.show(point, total_steps)
        tracker().log([point for point, _ in points])

    try:
        return run_distributed(
            job,
            name=_run_name(ctx),
            storage=Storage.beside(ctx.lake, ctx.settings),
            settings=ctx.settings,
            workers=ctx.params.workers,
            watch=watch,
        )
    finally:
        progress.close()


def _run_name(ctx: StepContext) -> str:
    """A retry with the same key and as many workers goes on from the last checkpoint."""
    return f"{ctx.params.recipe}-{ctx.key}-{ctx.params.workers or ctx.settings.training.workers}"


def _metrics(trained: Trained, began: float) -> dict[str, Any]:
    run = trained.run
    return {
        "validation": run.metrics,
        "best": run.best,
        "best_epoch": run.best_epoch,
        "epochs": run.epoch,
        "steps": run.step,
        "stopped_early": run.stopped_early,
        "data_wait_share": round(run.data_wait_share, 4),
        "startup_s": round(run.started_at - began, 1),
        "work_s": round(time.time() - run.started_at, 1),
    }


def commit(ctx: StepContext, manifest: Manifest) -> None:
    """Register the artifact and what it came from; drop the checkpoints, which nothing needs any more."""
    registry = Registry(ctx.settings, ctx.spec.name)
    version = registry.register(ctx.params.recipe, manifest)
    for name, parent in ctx.inputs.items():
        if parent.step == STEP.name:
            registry.tag(ctx.params.recipe, version, name, _called(registry, parent))
    log.info("registered as version %s of %s-%s", version, ctx.spec.name, ctx.params.recipe)
    Storage.beside(ctx.lake, ctx.settings).remove(_run_name(ctx))


def _called(registry: Registry, train: Manifest) -> str:
    """Model, version and manifest of a run, for people to follow."""
    recipe = train.params["recipe"]
    return f"{registry.model(recipe)} version {registry.version_of(recipe, train)}, {train.uri}"


def inputs(params: TrainParams) -> dict[str, str]:
    """The features, and what the recipe reads beside them."""
    return {"features": "features", **load_recipe(params.recipe).extra_inputs}


STEP = Step(
    name="train",
    version=2,
    run=run,
    params=TrainParams,
    complete=complete,
    inputs=inputs,
    reads=("contract",),
    advances="runs/{recipe}",
    commit=commit,
)
