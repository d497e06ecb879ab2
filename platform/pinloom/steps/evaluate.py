"""`evaluate`: a trained model against its rivals on one split, as numbers, scores and one HTML page."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.recipe import load_recipe
from pinloom.evaluation.kinds import kind_of
from pinloom.steps.base import Params, Step, StepContext, World


class EvaluateParams(Params):
    """
    Attributes:
        max_requests: rankers: of the split at most; those with the lowest hash of their id.
        full_requests: rankers: requests ranked over everything that could have been shown, at most.
        ablation: rankers: train the same ranker without its sequence and compare.
        max_pairs: vectors: of the split at most; a fixed sample.
        max_questions: sequences: moments of the split at most; those with the lowest hash.
        ablations: further rows of the report: names of the recipe's ablations, or 'all'. Each is trained alike.
        ablation_workers: of Ray Train for them; 0 = in this process.
        resamples: of the bootstrap.
    """

    recipe: str = "transact"
    split: Literal["validation", "test"] = "test"
    max_requests: int | None = Field(default=None, ge=1)
    full_requests: int = Field(default=500, ge=0)
    ablation: bool = True
    max_pairs: int | None = Field(default=20_000, ge=1)
    max_questions: int = Field(default=5_000, ge=1)
    ablations: tuple[str, ...] = ()
    ablation_workers: int = Field(default=0, ge=0)
    resamples: int = Field(default=1000, ge=10)
    seed: int = 0


def run(ctx: StepContext) -> None:
    kind_of(ctx.params.recipe).evaluate(ctx)


def inputs(params: EvaluateParams) -> dict[str, str]:
    extra = load_recipe(params.recipe).extra_inputs
    return {"train": "runs/{recipe}", "features": "features", **extra}


def as_trained(params: EvaluateParams, world: World) -> EvaluateParams:
    """What a run read beside the features stays with it; so do the features where those tables share their rows."""
    recipe = load_recipe(params.recipe)
    if recipe.extra_inputs:
        train = world.input("train", params)
        shared = ["features"] if recipe.kind == "vectors" else []
        for name in (*shared, *recipe.extra_inputs):
            world.given[name] = world.lake.manifest(train.inputs[name]["uri"])
    return params


STEP = Step(
    name="evaluate",
    version=3,
    run=run,
    params=EvaluateParams,
    complete=as_trained,
    inputs=inputs,
    reads=("contract",),
    advances="evaluations/{recipe}",
)
