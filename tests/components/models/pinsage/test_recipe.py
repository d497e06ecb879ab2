"""PinSage trained on a planted graph whose content says little: it learns what is saved together."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from components.errors import UserError
from components.evaluation.retrieval import places
from components.generator.boards import planted_boards
from components.graph.draws import mixed
from components.graph.walks import WalkConfig, Walker
from components.models.pinsage.artifact import load_pinsage
from components.models.pinsage.config import ABLATIONS, PAPER
from components.models.pinsage.data import query_batches
from components.models.pinsage.inference import embed
from components.recipe import Rank, make_recipe
from pinloom.training.local import run_local
from tests.components.models.pinsage.planted import LEARN, TOP, WORLD, contest, graph_of, recipe_inputs


@pytest.fixture(scope="module")
def planted():
    return planted_boards(np.random.default_rng(0), **WORLD)


@pytest.fixture(scope="module")
def inputs(planted, tmp_path_factory):
    return recipe_inputs(planted, tmp_path_factory.mktemp("planted"), TOP)


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run = run_local(make_recipe("pinsage", inputs, "debug", LEARN), folder)
    return run, folder / "checkpoint" / "artifact"


def hit(vectors: np.ndarray, recipe) -> float:
    (batch,) = query_batches(recipe.held_out, 10**6)
    query, owner, positive = (t.numpy() for t in (batch.query_Q, batch.owner_P, batch.positive_P))
    return float(places(vectors[query] @ vectors.T, query, owner, positive).hit(10).mean())


def test_it_beats_content_only_co_occurrence_and_mean_pooling_on_a_planted_graph(planted, inputs, trained, tmp_path):
    """In hit-rate and in MRR, by intervals that do not overlap."""
    recipe = make_recipe("pinsage", inputs, "debug", LEARN)
    run_local(make_recipe("pinsage", inputs, "debug", {**LEARN, "pooling": "mean"}), tmp_path)
    artifacts = {"PinSage": trained[1], "mean pooling": tmp_path / "checkpoint" / "artifact"}
    vectors = {name: embed(load_pinsage(artifact), recipe.catalogue) for name, artifact in artifacts.items()}
    found = contest(planted, recipe, vectors)
    ours = found.pop("PinSage")
    assert len(found) == 4
    for name, theirs in found.items():
        for metric, mine in ours.items():
            assert mine.low > theirs[metric].high, (name, ours, theirs)


def test_an_artifact_gives_the_vectors_that_were_validated(inputs, trained):
    run, artifact = trained
    recipe = make_recipe("pinsage", inputs, "debug", LEARN)
    model = load_pinsage(artifact)
    vectors = embed(model, recipe.catalogue)
    assert hit(vectors, recipe) == pytest.approx(run.metrics["hit@10"], abs=1e-6)
    said = json.loads((artifact / "artifact.json").read_text())
    assert said["vectors"] == "content-1"
    assert said["config"]["neighbours"] == TOP
    short = model.compact(torch.from_numpy(vectors)).numpy()
    assert short.shape == (len(vectors), 32)
    np.testing.assert_allclose(np.linalg.norm(short[1:], axis=1), 1, atol=1e-5)


def test_isolated_items_get_vectors_that_know_more_than_nothing(planted, inputs, trained):
    """Items on no board: their content alone finds their topic better than chance does."""
    _, artifact = trained
    recipe = make_recipe("pinsage", inputs, "debug", LEARN)
    vectors = embed(load_pinsage(artifact), recipe.catalogue)
    alone = np.arange(len(planted.topic) - WORLD["isolated"], len(planted.topic))
    assert not recipe.catalogue.degree[alone].any()
    score = vectors[alone] @ vectors[1 : alone[0]].T
    nearest = 1 + np.argsort(-score, axis=1)[:, :10]
    right = (planted.topic[nearest] == planted.topic[alone][:, None]).mean()
    assert right > 3 / WORLD["topics"], right


VARIANTS = [
    {},
    {"combine": "average"},
    {"id_dim": 4},
    PAPER,
    {"loss": "cross_entropy", "log_q": False, "length": "one"},
    {"compact_by": "trained", "compact": 8},
    {"pooling": "max", "layers": 1},
]


@pytest.mark.parametrize("changed", VARIANTS, ids=str)
def test_every_parameter_has_a_gradient_from_the_first_batch_on(inputs, changed):
    """Else DistributedDataParallel would wait for it."""
    recipe = make_recipe("pinsage", inputs, "debug", changed)
    recipe.on_epoch(0)
    model = recipe.build_model()
    loss, _ = recipe.loss(model, next(iter(recipe.train_batches(Rank()))))
    loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


class Stop(Exception):
    pass


def test_a_run_that_was_killed_goes_on_to_the_same_curve(inputs, tmp_path):
    from pinloom.training.loop import LoopOptions

    small = {"epochs": 3, "steps_per_epoch": 10}
    options = LoopOptions(checkpoint_steps=4)
    whole = run_local(make_recipe("pinsage", inputs, "debug", small), tmp_path / "whole", options)

    def kill(point, total):
        if point["step"] >= 17:
            raise Stop

    with pytest.raises(Stop):
        run_local(make_recipe("pinsage", inputs, "debug", small), tmp_path / "killed", options, tell=kill)
    resumed = run_local(make_recipe("pinsage", inputs, "debug", small), tmp_path / "killed", options)
    assert resumed.metrics == pytest.approx(whole.metrics)
    assert [p for p in resumed.curve if "train/loss" in p][-1] == pytest.approx(
        [p for p in whole.curve if "train/loss" in p][-1]
    )


def test_the_curriculum_adds_a_hard_negative_per_epoch_up_to_the_most(inputs):
    recipe = make_recipe("pinsage", inputs, "debug", {"hard_negatives": 3})
    source = recipe.train_batches(Rank())
    widths = []
    for epoch in range(5):
        recipe.on_epoch(epoch)
        source.set_epoch(epoch)
        widths.append(next(iter(source)).hard_BH.shape[1])
    assert widths == [0, 1, 2, 3, 3]
    at_once = make_recipe("pinsage", inputs, "debug", {"hard_negatives": 3, "curriculum": False})
    at_once.on_epoch(0)
    assert next(iter(at_once.train_batches(Rank()))).hard_BH.shape[1] == 3


def test_the_papers_objective_weighs_all_numbers_of_a_vector(inputs):
    """The first `compact` of them have no loss of their own, whatever the default is."""
    rows = [name for name in ABLATIONS if name.startswith("the paper's objective")]
    assert rows
    for name in rows:
        recipe = make_recipe("pinsage", inputs, "debug", {**ABLATIONS[name], "hard_negatives": 0})
        batch, model = next(iter(recipe.train_batches(Rank()))), recipe.build_model()
        assert recipe.loss(model, batch)[0] == recipe._objective(model(batch.graph), batch)


@pytest.mark.parametrize("rewalk", [False, True])
def test_neighbourhoods_are_walked_anew_for_each_epoch_only_if_asked(inputs, rewalk):
    recipe = make_recipe("pinsage", inputs, "debug", {"rewalk": rewalk, "neighbours": 10})
    stored, read = recipe.catalogue.neighbours, []
    for epoch in (0, 1, 2, 1):
        recipe.on_epoch(epoch)
        read.append(recipe.collator.catalogue.neighbours)
    assert np.array_equal(read[0], stored)
    assert np.array_equal(read[1], read[3])
    differ = [not np.array_equal(a, b) for a, b in ((read[0], read[1]), (read[1], read[2]))]
    assert differ == [rewalk, rewalk]
    assert read[1].shape == stored.shape
    assert np.array_equal(recipe.catalogue.neighbours, stored)
    assert len(next(iter(recipe.train_batches(Rank()))))


@pytest.mark.parametrize("changed", [{"walks": 32}, {"length": 3}, {"restart": 0.7}, {"early_stop": 2}, {"seed": 2}])
def test_walks_of_an_epoch_are_the_steps_with_another_seed(planted, inputs, changed):
    def walked(training_seed: int, **changes):
        given = replace(inputs, seed=training_seed, params={"neighbourhoods": {**step, **changes}})
        recipe = make_recipe("pinsage", given, "debug", {"rewalk": True, "neighbours": TOP})
        recipe.on_epoch(1)
        return recipe.collator.catalogue

    step, found = inputs.params["neighbourhoods"], []
    for changes in ({}, changed):
        config = WalkConfig(**{**step, **changes})
        again = replace(config, seed=mixed(config.seed, 5, 1))
        expected = Walker(graph_of(planted), again).walk()
        found.append(walked(5, **changes))
        assert np.array_equal(found[-1].neighbours, expected.neighbourhoods.rows)
        assert np.array_equal(found[-1].band, expected.band)
    own = Walker(graph_of(planted), WalkConfig(**step)).walk().neighbourhoods.rows
    for other in (found[1].neighbours, walked(6).neighbours, own):
        assert not np.array_equal(found[0].neighbours, other)


def test_walks_of_an_unknown_kind_are_not_made_anew(inputs):
    recipe = make_recipe("pinsage", replace(inputs, params={}), "debug", {"rewalk": True, "neighbours": 10})
    recipe.on_epoch(0)
    with pytest.raises(UserError, match="walks as the step"):
        recipe.on_epoch(1)


def test_the_learning_rate_warms_up_in_the_first_epoch_and_then_decays(inputs):
    recipe = make_recipe("pinsage", inputs, "debug", {"decay": 0.5, "epochs": 3, "learning_rate": 0.01})
    (optimization,) = recipe.optimizations(recipe.build_model(), total_steps=30)
    rates = []
    for _ in range(30):
        rates.append(optimization.optimizer.param_groups[0]["lr"])
        optimization.optimizer.step()
        optimization.scheduler.step()
    assert rates[0] == pytest.approx(0.001)
    assert rates[9] == pytest.approx(0.01)
    assert rates[20] == pytest.approx(0.005)
    assert max(rates) == pytest.approx(0.01)


def test_more_neighbours_than_were_stored_are_refused_with_the_remedy(inputs):
    with pytest.raises(UserError, match=f"wants {TOP + 1} neighbours, the neighbourhoods hold {TOP}"):
        _ = make_recipe("pinsage", inputs, "debug", {"neighbours": TOP + 1}).catalogue


@pytest.mark.parametrize("field", ["pooling", "combine", "length", "loss", "compact_by"])
def test_a_wrong_choice_is_answered_with_the_right_ones(inputs, field):
    with pytest.raises(UserError, match=f"{field} is 'sum'") as e:
        make_recipe("pinsage", inputs, "debug", {field: "sum"})
    assert "one of:" in e.value.remedy


def test_under_bfloat16_places_are_those_of_float32(inputs):
    """Vectors of a popular catalogue are almost alike."""
    recipe = make_recipe("pinsage", inputs, "debug", LEARN)
    model = recipe.build_model()
    near = 1 + 0.02 * torch.randn(len(recipe.catalogue), 8, generator=torch.Generator().manual_seed(0))
    recipe._vectors = torch.nn.functional.normalize(near, dim=1)
    (batch,) = query_batches(recipe.held_out, 10**6)
    exact = recipe.measure(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert recipe.measure(model, batch) == exact
