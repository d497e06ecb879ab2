"""A recipe without anything sharded on two ranks, that was best before it died."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from components.recipe import Rank, RecipeInputs
from pinloom.training.loop import Loop, LoopOptions
from tests.platform.training.planted import CONTRACT, PlantedConfig, PlantedRecipe, write_tables
from tests.platform.training.test_sharded import Killed, SharedFolder
from tests.ranks import run_ranks


class Worsening(PlantedRecipe):
    """Its first epoch is its best; dies at the given step, unless that is past."""

    dies_at = -1
    steps = 0

    def on_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def loss(self, model, batch):
        self.steps += 1
        if self.steps == self.dies_at:
            raise Killed
        return super().loss(model, batch)

    def measure(self, model, batch):
        return {self.monitor: (-float(self.epoch) if self.higher_is_better else float(self.epoch), 1.0)}


def train(inputs: RecipeInputs, folder: Path, dies_at: int = -1) -> float | None:
    recipe = Worsening(PlantedConfig(), inputs)
    recipe.dies_at = dies_at
    rank = Rank(dist.get_rank(), dist.get_world_size())
    return Loop(recipe, rank, LoopOptions(checkpoint_steps=7), SharedFolder(folder)).run().best


def work(rank: int, folder: str, inputs: RecipeInputs) -> None:
    torch.set_num_threads(1)
    root = Path(folder)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    train(inputs, root / "whole")
    with pytest.raises(Killed):
        train(inputs, root / "killed", dies_at=100)
    train(inputs, root / "killed")
    dist.destroy_process_group()


def test_it_resumes_and_leaves_the_weights_of_the_epoch_before(tmp_path):
    inputs = RecipeInputs(CONTRACT, write_tables(tmp_path / "tables"), "planted_v1", "planted")
    run_ranks(work, str(tmp_path), inputs)
    whole, resumed = (load_file(tmp_path / name / "checkpoint" / "best.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name])
