"""The loop on one process: it learns, stops, resumes to the same bits, and says what is wrong."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.errors import UserError
from components.recipe import Rank, RecipeInputs
from pinloom.training.local import run_local
from pinloom.training.loop import LoopOptions
from tests.platform.training.planted import CONTRACT, PlantedRecipe, planted, write_tables

DEVICES = ["cpu", *(f"cuda:{i}" for i in range(min(1, torch.cuda.device_count())))]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("planted"))


class Killed(BaseException):
    """As sudden as a signal."""


class DyingRecipe(PlantedRecipe):
    """Dies at its n-th loss."""

    dies_at = 0

    def loss(self, model, batch):
        self.dies_at -= 1
        if self.dies_at == 0:
            raise Killed
        return super().loss(model, batch)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bf16", [False, True])
def test_a_planted_rule_is_learned_on_every_device(tables, tmp_path, device, bf16):
    run = run_local(planted(tables), tmp_path, LoopOptions(bf16=bf16), rank=Rank(device=torch.device(device)))
    assert run.metrics["accuracy"] > 0.85
    assert (run.epoch, run.step, run.finished) == (3, 3 * 64, True)


def test_the_exported_weights_are_those_of_the_best_epoch(tables, tmp_path):
    # A learning rate this high makes later epochs wander.
    recipe = planted(tables, lr=5.0, epochs=4)
    run = run_local(recipe, tmp_path)
    model = recipe.build_model().eval()
    model.load_state_dict(load_file(tmp_path / "checkpoint" / "artifact" / "model.safetensors"))
    sums = [recipe.measure(model, b)["loss"] for b in recipe.validation_batches(Rank())]
    assert sum(s for s, _ in sums) / sum(w for _, w in sums) == pytest.approx(run.best, rel=1e-6)
    losses = [p["validation/loss"] for p in run.curve if "validation/loss" in p]
    assert run.best == min(losses)
    assert run.best_epoch == losses.index(min(losses))


def test_it_stops_after_patience_validations_without_improvement(tables, tmp_path):
    run = run_local(planted(tables, lr=0.0, epochs=10, patience=2), tmp_path)
    assert run.stopped_early
    assert run.epoch - 1 - run.best_epoch == 2
    assert run.epoch < 10


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("dies_at", [1, 50, 64, 65, 150])
def test_a_run_that_died_resumes_to_the_same_curve_and_weights(tables, tmp_path, dies_at, prefetch):
    options = LoopOptions(checkpoint_steps=20, prefetch=prefetch)
    whole = run_local(planted(tables), tmp_path / "whole", options)
    recipe = DyingRecipe(planted(tables).config, RecipeInputs(CONTRACT, tables))
    recipe.dies_at = dies_at
    with pytest.raises(Killed):
        run_local(recipe, tmp_path / "killed", options)
    resumed = run_local(planted(tables), tmp_path / "killed", options)
    assert resumed.curve == whole.curve
    one, two = (load_file(tmp_path / n / "checkpoint" / "model.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_a_finished_run_started_again_only_exports(tables, tmp_path):
    first = run_local(planted(tables), tmp_path)
    recipe = DyingRecipe(planted(tables).config, RecipeInputs(CONTRACT, tables))
    recipe.dies_at = 1
    again = run_local(recipe, tmp_path)
    assert again.curve == first.curve
    assert (tmp_path / "checkpoint" / "artifact" / "artifact.json").exists()


def test_each_seed_gives_its_own_run_and_the_same_seed_the_same_bits(tables, tmp_path):
    runs = [run_local(planted(tables, seed=s), tmp_path / str(i)) for i, s in enumerate([0, 0, 1])]
    assert runs[0].curve == runs[1].curve
    assert runs[0].curve != runs[2].curve


def test_prefetching_changes_nothing_that_is_learned(tables, tmp_path):
    runs = [run_local(planted(tables), tmp_path / str(n), LoopOptions(prefetch=n)) for n in (0, 1, 8)]
    assert runs[0].curve == runs[1].curve == runs[2].curve


def test_every_point_of_the_curve_is_told_as_it_happens(tables, tmp_path):
    told = []
    run = run_local(planted(tables), tmp_path, tell=lambda point, total: told.append((point, total)))
    assert [p for p, _ in told] == run.curve
    assert {total for _, total in told} == {3 * 64}
    train = [p for p in run.curve if "train/loss" in p]
    assert len(train) >= 100
    assert train[-1]["train/loss"] < train[0]["train/loss"]


def test_waiting_for_data_is_measured(tables, tmp_path):
    run = run_local(planted(tables), tmp_path, LoopOptions(prefetch=0))
    assert 0 < run.data_wait_share < 1
    assert run.data_wait_share == pytest.approx(run.wait_s / (run.wait_s + run.work_s))


def test_a_loss_that_is_not_finite_is_refused_with_the_step(tables, tmp_path):
    recipe = planted(tables)
    recipe.loss = lambda model, batch: (model(batch.x).sum() * float("nan"), {})
    with pytest.raises(UserError, match="loss of recipe 'planted' is nan at step 1"):
        run_local(recipe, tmp_path)


def test_a_log_without_validation_rows_is_refused(tables, tmp_path):
    recipe = planted(tables)
    recipe.validation_batches = lambda rank: iter(())
    with pytest.raises(UserError, match="no validation row has"):
        run_local(recipe, tmp_path)


def test_features_without_the_training_split_are_refused_by_name(tables, tmp_path):
    recipe = planted({"examples/validation": tables["examples/validation"]})
    with pytest.raises(UserError, match="no table 'examples/train'"):
        run_local(recipe, tmp_path)


def test_more_rows_per_batch_than_there_are_is_refused(tables, tmp_path):
    with pytest.raises(UserError, match="fewer training rows than one batch"):
        run_local(planted(tables, batch_size=10**6), tmp_path)


def test_a_checkpoint_of_more_ranks_is_not_taken_for_ours(tables, tmp_path):
    run_local(planted(tables), tmp_path)
    state = tmp_path / "checkpoint" / "run.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"world": 2}))
    with pytest.raises(RuntimeError, match="written by 2 ranks"):
        run_local(planted(tables), tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("run.json", lambda c: {**c, "config": {**c["config"], "lr": 7.0}}, "configuration has lr = 7.0, now 0.05"),
        ("run.json", lambda c: {k: v for k, v in c.items() if k != "config"}, "has batch_size = none, now 64"),
        ("run.json", lambda c: {**c, "lives": 9}, "its state has lives = a value, now none"),
        ("model.safetensors", lambda w: {**w, "2.weight": w["2.weight"][:, 1:]}, r"shape 2.weight = \[1, 7\], now"),
        ("model.safetensors", lambda w: {**w, "3.bias": w["2.bias"] + 1}, r"shape 3.bias = \[1\], now none"),
    ],
)
def test_a_checkpoint_of_another_version_is_refused_with_what_differs(tables, tmp_path, file, change, said):
    run_local(planted(tables, epochs=1), tmp_path)
    path = tmp_path / "checkpoint" / file
    if file.endswith(".json"):
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    else:
        save_file({k: v.contiguous() for k, v in change(load_file(path)).items()}, path)
    with pytest.raises(UserError, match=said) as refused:
        run_local(planted(tables, epochs=1), tmp_path)
    assert "trains anew" in refused.value.remedy
