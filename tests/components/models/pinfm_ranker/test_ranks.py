"""Two ranks under DDP: all that may learn gets a gradient on each, and both stay one model."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from components.models.pinfm_ranker.config import ABLATIONS
from components.recipe import Rank, RecipeInputs, make_recipe
from tests.ranks import run_ranks

STEPS = 3
NAMES = ("full", "Table 6: frozen", "Table 1: lite-mean", "Table 3: no sequence loss", "PinFM without TransAct")


def work(number: int, folder: str, inputs: RecipeInputs) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    rank = Rank(number, 2)
    found = {}
    for name in NAMES:
        recipe = make_recipe("pinfm_ranker", inputs, "debug", ABLATIONS.get(name, {}))
        torch.manual_seed(0)
        model = recipe.parallelize(recipe.build_model(), rank).train()
        (optimization,) = recipe.optimizations(model, 10)
        torch.manual_seed(number + 1)
        for _, batch in zip(range(STEPS), recipe.train_batches(rank), strict=False):
            optimization.optimizer.zero_grad()
            recipe.loss(model, batch)[0].backward()
            optimization.optimizer.step()
            optimization.scheduler.step()
        found[name] = {n: p.detach() for n, p in model.module.named_parameters()}
    torch.save(found, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(with_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(work, str(folder), with_base)
    return [torch.load(folder / f"{n}.pt", weights_only=True) for n in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_stay_one_model_and_learn(ranks, with_base, name):
    one, two = (found[name] for found in ranks)
    assert all(torch.equal(one[n], two[n]) for n in one)
    torch.manual_seed(0)
    recipe = make_recipe("pinfm_ranker", with_base, "debug", ABLATIONS.get(name, {}))
    begun = dict(recipe.build_model().named_parameters())
    moved = {n for n, p in begun.items() if not torch.equal(p, one[n])}
    assert moved == {n for n, p in begun.items() if p.requires_grad}
