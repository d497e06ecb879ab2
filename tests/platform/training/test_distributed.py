"""The loop on Ray Train: a killed worker leaves no trace in what is learned; no room is said in time."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.errors import UserError
from components.recipe import Rank, RecipeInputs
from pinloom.settings import RaySettings, Settings, TrainingSettings
from pinloom.training.distributed import run_distributed
from pinloom.training.storage import Storage
from tests.platform.training.planted import CONTRACT, PlantedConfig, PlantedRecipe, write_tables

pytestmark = pytest.mark.cluster

CHOICES = TrainingSettings(checkpoint_steps=20, max_failures=1)
DEVICES = [False, *([True] if torch.cuda.device_count() >= 2 else [])]


class SuicidalRecipe(PlantedRecipe):
    """Its second rank kills its own process at one step of the first attempt."""

    grave: Path
    at_step: int

    def train_batches(self, rank: Rank):
        self.rank, self.steps = rank.rank, 0
        return super().train_batches(rank)

    def loss(self, model, batch):
        self.steps += 1
        if self.rank == 1 and self.steps == self.at_step and not self.grave.exists():
            self.grave.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(model, batch)


@dataclass(frozen=True)
class Build:
    tables: dict[str, list[str]]
    grave: Path | None = None

    def __call__(self) -> PlantedRecipe:
        inputs = RecipeInputs(CONTRACT, self.tables)
        if self.grave is None:
            return PlantedRecipe(PlantedConfig.debug(), inputs)
        recipe = SuicidalRecipe(PlantedConfig.debug(), inputs)
        recipe.grave, recipe.at_step = self.grave, 90
        return recipe


def _settings(tmp_path: Path, training: TrainingSettings = CHOICES, **ray: Any) -> Settings:
    return Settings(home=tmp_path, training=training, ray=RaySettings(**ray))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("planted"))


@pytest.mark.parametrize("use_gpu", DEVICES)
def test_a_killed_worker_is_replaced_and_the_curve_is_that_of_a_run_without_it(ray_cluster, tables, tmp_path, use_gpu):
    settings = _settings(tmp_path, CHOICES.model_copy(update={"use_gpu": use_gpu}))
    storage = Storage(str(tmp_path / "ray_results"))
    interrupt = signal.getsignal(signal.SIGINT)
    whole = run_distributed(Build(tables), name="whole", storage=storage, settings=settings)
    seen: list[dict[str, float]] = []
    killed = run_distributed(
        Build(tables, grave=tmp_path / "grave"),
        name="killed",
        storage=storage,
        settings=settings,
        watch=lambda points: seen.extend(p for p, _ in points),
    )
    assert (tmp_path / "grave").exists()
    assert killed.run.curve == whole.run.curve
    assert killed.run.metrics["accuracy"] > 0.8
    one, two = (load_file(t.download(tmp_path / n) / "model.safetensors") for n, t in (("1", whole), ("2", killed)))
    assert all(torch.equal(one[k], two[k]) for k in one)
    # Steps 81 to 90 were told twice: before the kill and after the resume.
    assert {p["step"] for p in seen} == {p["step"] for p in whole.run.curve}
    assert len(seen) > len(whole.run.curve)
    assert signal.getsignal(signal.SIGINT) is interrupt


def test_a_job_without_room_fails_in_time_saying_what_it_asked_for_and_what_there_is(ray_cluster, tables, tmp_path):
    settings = _settings(tmp_path, TrainingSettings(cpus_per_worker=100), schedule_timeout_s=3)
    began = time.monotonic()
    with pytest.raises(UserError) as e:
        run_distributed(Build(tables), name="big", storage=Storage(str(tmp_path / "results")), settings=settings)
    assert time.monotonic() - began < 60
    assert "2 training workers with 100 CPU each" in e.value.problem
    assert f"the cluster has {RaySettings().logical_cpus} CPU" in e.value.problem
    assert "PINLOOM_TRAINING__WORKERS" in e.value.remedy


def test_data_that_the_recipe_refuses_is_the_users_mistake_and_not_tried_again(ray_cluster, tables, tmp_path):
    with pytest.raises(UserError, match="no table 'examples/train'"):
        run_distributed(
            Build({"examples/validation": tables["examples/validation"]}),
            name="refused",
            storage=Storage(str(tmp_path / "results")),
            settings=_settings(tmp_path),
            workers=0,  # Ray Train's local mode: no worker has to start for this
        )
