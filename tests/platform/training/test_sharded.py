"""PinFM on two ranks through the loop: each holds half of the id table, checkpoints and artifact included."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from components.models.pinfm.artifact import load_pinfm
from components.recipe import Rank, RecipeInputs, configure, load_recipe
from pinloom.lake import Lake
from pinloom.training.job import LakeTables
from pinloom.training.loop import Loop, LoopOptions
from tests.components.models.conftest import planted_contract
from tests.platform.training.ranking import publish_features
from tests.ranks import run_ranks


class Killed(BaseException):
    """As sudden as a signal."""


class SharedFolder:
    """A host whose ranks keep their files in one folder, as Ray Train does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def latest(self):
        kept = self.folder / "checkpoint"
        yield kept if kept.exists() else None

    def keep(self, folder: Path, run) -> None:
        if dist.get_rank() == 0:
            shutil.rmtree(self.folder / "checkpoint", ignore_errors=True)
        dist.barrier()
        shutil.copytree(folder, self.folder / "checkpoint", dirs_exist_ok=True)
        dist.barrier()

    def tell(self, point, total_steps) -> None:
        pass


def train(inputs: RecipeInputs, folder: Path, dies_after: int | None = None) -> list[dict[str, float]]:
    recipe = configure(load_recipe("pinfm"), inputs, "debug", {"epochs": 2, "batch": 8})
    compute = recipe.loss

    def loss(model, batch):
        nonlocal dies_after
        if dies_after is not None:
            dies_after -= 1
            if dies_after < 0:
                raise Killed
        return compute(model, batch)

    recipe.loss = loss  # type: ignore[method-assign]
    rank = Rank(dist.get_rank(), dist.get_world_size())
    return Loop(recipe, rank, LoopOptions(checkpoint_steps=7), SharedFolder(folder)).run().curve


def work(rank: int, folder: str, inputs: RecipeInputs) -> None:
    torch.set_num_threads(1)
    root = Path(folder)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    curve = train(inputs, root / "whole")
    with pytest.raises(Killed):
        train(inputs, root / "killed", dies_after=int(curve[-1]["step"]) * 2 // 3)
    torch.save((curve, train(inputs, root / "killed")), root / f"curves-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("ranks")
    lake = Lake(f"file://{folder}/lake")
    tables = LakeTables(lake.root, publish_features(lake, folder))
    inputs = RecipeInputs(planted_contract(), tables, "planted_v1", "planted")
    run_ranks(work, str(folder), inputs, timeout_s=300)
    return folder


def test_a_run_that_died_resumes_to_the_same_curve_and_table(ranks):
    for rank in range(2):
        whole, resumed = torch.load(ranks / f"curves-{rank}.pt")
        assert resumed == whole
        one, two = (
            load_file(ranks / name / "checkpoint" / "artifact" / f"table-{rank + 1}-of-2.safetensors")
            for name in ("whole", "killed")
        )
        assert torch.equal(one["table.weight"], two["table.weight"])


def test_no_rank_holds_or_writes_the_others_rows(ranks):
    model = load_pinfm(ranks / "whole" / "checkpoint" / "artifact")
    half = len(model.table.weight) // 2
    for rank in range(2):
        own = torch.load(ranks / "whole" / "checkpoint" / f"rank-{rank}.pt", weights_only=True)
        assert len(own["weights"]["table.weight"]) == half
        written = load_file(ranks / "whole" / "checkpoint" / "artifact" / f"table-{rank + 1}-of-2.safetensors")
        torch.testing.assert_close(model.table.weight[rank * half : (rank + 1) * half], written["table.weight"])
    assert "table.weight" not in load_file(ranks / "whole" / "checkpoint" / "artifact" / "model.safetensors")


def test_it_learns(ranks):
    curve, _ = torch.load(ranks / "curves-0.pt")
    losses = [p["train/loss"] for p in curve if "train/loss" in p]
    assert sum(losses[-3:]) < sum(losses[:3])
