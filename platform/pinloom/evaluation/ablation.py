"""The subject with one choice changed; features, seed, rows per step and all other fields of its configuration stay.

What only the artifact depends on is not trained again where the subject's artifact holds what was trained: its own
weights are exported the other way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.models.artifact import describe_artifact
from components.recipe import load_recipe, resolve
from pinloom.evaluation.study import NOSEQ
from pinloom.features.vectors import before_embedding
from pinloom.lake import Manifest
from pinloom.steps.base import StepContext
from pinloom.training.job import RecipeJob
from pinloom.training.local import run_local
from pinloom.training.loop import LoopOptions
from pinloom.training.progress import Progress

ALL = "all"
CONTENT = "content vectors"
"""Row of rankers on embedded features: the same ranker on the vectors that the learned ones took the place of."""

log = logging.getLogger("pinloom.evaluation")


def rows_of(recipe: str, names: Sequence[str]) -> list[str]:
    """The recipe's ablations that `names` asks for, beside the ranker without the sequence.

    Raises:
        UserError: the recipe has no such ablation.
    """
    found = load_recipe(recipe)
    known = [name for name in found.ablations if name != NOSEQ] + [CONTENT] * (found.kind == "ranker")
    unknown = [name for name in names if name not in (*known, ALL)]
    if unknown:
        raise UserError(
            f"recipe '{recipe}' has no ablation '{unknown[0]}'", f"use '{ALL}', or of: {', '.join(known) or 'none'}"
        )
    return known if ALL in names else list(names)


def train_ablation(ctx: StepContext, train: Manifest, name: str, workers: int) -> Path | None:
    """Folder of the artifact; None when the recipe has no such ablation, or was trained that way itself, or its inputs
    do not allow it.

    Args:
        workers: of Ray Train; 0 = in this process, with as many rows a step and threads as the run's workers had
            together.
    """
    recipe, features = train.params["recipe"], ctx.lake.manifest(train.inputs["features"]["uri"])
    artifact = ctx.lake.local_folder(train.output("artifact"))
    subject = RecipeJob(
        recipe=load_recipe(recipe),
        contract=ctx.spec_of(features).contract,
        features=features,
        lake_root=ctx.lake.root,
        # As it was trained: defaults may have changed since.
        overrides=describe_artifact(artifact)["config"],
        seed=train.params.get("seed", 0),
        extras=tuple(ctx.lake.manifest(train.inputs[name]["uri"]) for name in load_recipe(recipe).extra_inputs),
    )
    job = _changed(ctx, subject, name)
    if job is None:
        return None
    folder = ctx.scratch / "ablations" / name.replace(" ", "-").replace(":", "")
    folder.mkdir(parents=True)
    if _exports(subject, name):
        job().export_again(artifact, folder)
        return folder
    return _distributed(ctx, job, name, folder, workers) if workers else _here(ctx, job, name, folder, train)


def _changed(ctx: StepContext, subject: RecipeJob, name: str) -> RecipeJob | None:
    """The job of an ablation; None where it is the subject's own or cannot be."""
    if name == CONTENT:
        before = before_embedding(ctx.lake, subject.features)
        return replace(subject, features=before) if before else None
    change = subject.recipe.ablations.get(name)
    if change is None:
        return None
    job = replace(subject, overrides={**subject.overrides, **change})
    try:
        return None if job().config == subject().config else job
    except UserError as error:
        log.warning("the ablation '%s' is left out: %s", name, error)
        return None


def _exports(subject: RecipeJob, name: str) -> bool:
    """Whether the subject's own weights, as they were trained, are those of the ablation."""
    recipe, config = subject.recipe, subject().config
    return (
        name != CONTENT
        and recipe.ablations[name].keys() <= recipe.export_fields
        and all(getattr(config, field) == getattr(resolve(recipe), field) for field in recipe.export_fields)
    )


def _here(ctx: StepContext, job: RecipeJob, name: str, folder: Path, train: Manifest) -> Path:
    training = ctx.settings.training
    ranks = train.params.get("workers") or training.workers
    field = job.recipe.batch_field
    alike: dict[str, Any] = {field: getattr(job().config, field) * ranks}
    recipe = replace(job, overrides={**job.overrides, **alike})()
    progress = Progress(f"train ablation {name}", training.log_every_s)
    options = LoopOptions(threads=ranks * training.threads_per_worker, prefetch=training.prefetch_batches)
    try:
        run_local(recipe, folder, options, tell=progress.show)
    finally:
        progress.close()
    return folder / "checkpoint" / "artifact"


def _distributed(ctx: StepContext, job: RecipeJob, name: str, folder: Path, workers: int) -> Path:
    from pinloom.ray_cluster import connect
    from pinloom.training.distributed import run_distributed
    from pinloom.training.storage import Storage

    connect(ctx.settings)
    storage, run = Storage.beside(ctx.lake, ctx.settings), f"ablation-{ctx.key}-{folder.name}"
    trained = run_distributed(job, name=run, storage=storage, settings=ctx.settings, workers=workers)
    artifact = trained.download(folder)
    storage.remove(run)
    return artifact
