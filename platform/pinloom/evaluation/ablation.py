"""The same ranker without the sequence: same features, fields, seed and rows per step; nothing else differs."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from components.recipe import Recipe, load_recipe
from pinloom.lake import Manifest
from pinloom.steps.base import StepContext
from pinloom.training.job import RecipeJob
from pinloom.training.local import run_local
from pinloom.training.loop import LoopOptions
from pinloom.training.progress import Progress

FIELD, OFF = "sequence", "none"


def train_without_sequence(ctx: StepContext, train: Manifest, workers: int) -> Path | None:
    """Folder of the artifact; None when the recipe has no sequence to leave out, or was trained without.

    Args:
        workers: of Ray Train; 0 = in this process, with as many rows a step and threads as the run's workers had
            together.
    """
    recipe = load_recipe(train.params["recipe"])
    overrides: dict[str, Any] = dict(train.params.get("overrides", {}))
    if FIELD not in {f.name for f in fields(recipe.config_type)} or overrides.get(FIELD) == OFF:
        return None
    job = RecipeJob(
        recipe=recipe,
        contract=ctx.spec.contract,
        features=ctx.lake.manifest(train.inputs["features"]["uri"]),
        lake_root=ctx.lake.root,
        flavour=train.params.get("flavour", "default"),
        overrides={**overrides, FIELD: OFF},
        seed=train.params.get("seed", 0),
    )
    return _distributed(ctx, job, workers) if workers else _here(ctx, job, train)


def _here(ctx: StepContext, job: RecipeJob, train: Manifest) -> Path:
    training = ctx.settings.training
    ranks = train.params.get("workers") or training.workers
    alike = {"requests_per_batch": job().config.requests_per_batch * ranks}
    recipe: Recipe[Any] = RecipeJob(**{**vars(job), "overrides": {**job.overrides, **alike}})()
    progress = Progress("train without sequence", training.log_every_s)
    options = LoopOptions(threads=ranks * training.threads_per_worker, prefetch=training.prefetch_batches)
    folder = ctx.scratch / "ablation"
    folder.mkdir()
    try:
        run_local(recipe, folder, options, tell=progress.show)
    finally:
        progress.close()
    return folder / "checkpoint" / "artifact"


def _distributed(ctx: StepContext, job: RecipeJob, workers: int) -> Path:
    from pinloom.ray_cluster import connect
    from pinloom.training.distributed import run_distributed
    from pinloom.training.storage import Storage

    connect(ctx.settings)
    storage, name = Storage.beside(ctx.lake, ctx.settings), f"ablation-{ctx.key}"
    trained = run_distributed(job, name=name, storage=storage, settings=ctx.settings, workers=workers)
    artifact = trained.download(ctx.scratch / "ablation")
    storage.remove(name)
    return artifact
