"""Every shipped recipe keeps the loop's promises on its own batches and model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.contract import Contract
from components.generator.boards import planted_boards
from components.recipe import RECIPES, RecipeInputs, configure, load_recipe
from pinloom.lake import Lake, Manifest
from pinloom.training.job import LakeTables, RecipeJob
from pinloom.training.local import run_local
from pinloom.training.loop import LoopOptions
from tests.components.models.conftest import planted_contract
from tests.components.models.pinfm_ranker.conftest import write_base
from tests.components.models.pinsage.planted import recipe_inputs
from tests.platform.training.ranking import publish_features


class Killed(BaseException):
    """As sudden as a signal."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, RecipeInputs]:
    """Inputs by what a recipe reads beside the features."""
    graph = planted_boards(np.random.default_rng(0), topics=20, per_topic=10, boards=200, pairs=4000)
    ranking = ranking_inputs(tmp_path_factory.mktemp("ranking"))
    base = {"artifact": write_base(tmp_path_factory.mktemp("base"))}
    return {
        "": ranking,
        "base": replace(ranking, tables={**ranking.tables, **base}),
        "graph": recipe_inputs(graph, tmp_path_factory.mktemp("graph")),
    }


@pytest.fixture
def inputs(name, worlds) -> RecipeInputs:
    return worlds[next(iter(load_recipe(name).extra_inputs), "")]


def ranking_inputs(folder: Path) -> RecipeInputs:
    lake = Lake(f"file://{folder}/lake")
    contract: Contract = planted_contract()
    return RecipeInputs(contract, LakeTables(lake.root, publish_features(lake, folder)), "planted_v1", "planted")


def test_a_recipe_is_told_how_what_it_reads_was_made(tmp_path):
    lake = Lake(f"file://{tmp_path}/lake")
    features = publish_features(lake, tmp_path)
    at = features.created_at
    near = Manifest(step="neighbourhoods", version=1, key="1", created_at=at, params={"walks": 7, "band": [0.1, 0.2]})
    job = RecipeJob(load_recipe("pinsage"), planted_contract(), features, lake.root, extras=(near,))
    assert job().inputs.params == {"features": features.params, "neighbourhoods": near.params}


def _make(name: str, inputs: RecipeInputs):
    return configure(load_recipe(name), inputs, "debug", {"epochs": 2})


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_died_resumes_to_the_same_curve_and_weights(name, inputs, tmp_path: Path):
    options = LoopOptions(checkpoint_steps=7)
    whole = run_local(_make(name, inputs), tmp_path / "whole", options)
    dying = _make(name, inputs)
    compute, deadline = dying.loss, whole.step * 2 // 3

    def loss(model, batch):
        nonlocal deadline
        deadline -= 1
        if deadline < 0:
            raise Killed
        return compute(model, batch)

    dying.loss = loss
    with pytest.raises(Killed):
        run_local(dying, tmp_path / "killed", options)
    resumed = run_local(_make(name, inputs), tmp_path / "killed", options)
    assert resumed.curve == whole.curve
    one, two = (load_file(tmp_path / n / "checkpoint" / "model.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_learns_and_leaves_an_artifact(name, inputs, tmp_path: Path):
    run = run_local(_make(name, inputs), tmp_path)
    losses = [p["train/loss"] for p in run.curve if "train/loss" in p]
    assert sum(losses[-5:]) < sum(losses[:5])
    left = {p.name for p in (tmp_path / "checkpoint" / "artifact").iterdir()}
    assert {"model.safetensors", "artifact.json"} <= left
