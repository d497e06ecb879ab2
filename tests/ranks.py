"""Ranks as processes of this machine, for what two workers do together over gloo."""

import multiprocessing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from components.recipe import Rank, RecipeInputs, make_recipe

STEPS = 3


def run_ranks(work: Callable[..., None], *args: Any, ranks: int = 2, timeout_s: float = 600) -> None:
    """`work(rank, *args)` in fresh processes, all at once; each must end well."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=(rank, *args)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout_s)
        assert process.exitcode == 0


def learned_together(
    folder: Path, family: str, inputs: RecipeInputs, variants: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, dict[str, torch.Tensor]]]:
    """Parameters of each of two ranks after some steps under DDP, by variant of the recipe."""
    run_ranks(_learn, str(folder), family, inputs, {name: dict(changed) for name, changed in variants.items()})
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2)]


def _learn(number: int, folder: str, family: str, inputs: RecipeInputs, variants: dict[str, dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    rank, found = Rank(number, 2), {}
    for name, changed in variants.items():
        recipe = make_recipe(family, inputs, "debug", changed)
        torch.manual_seed(0)
        model = recipe.parallelize(recipe.build_model(), rank).train()
        optimizations = recipe.optimizations(model, 10)
        torch.manual_seed(number + 1)
        for _, batch in zip(range(STEPS), recipe.train_batches(rank), strict=False):
            model.zero_grad()
            recipe.loss(model, batch)[0].backward()
            for optimization in optimizations:
                optimization.optimizer.step()
                optimization.scheduler.step()
        found[name] = {n: p.detach() for n, p in model.module.named_parameters()}
    torch.save(found, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def begun(family: str, inputs: RecipeInputs, changed: Mapping[str, Any]) -> dict[str, torch.nn.Parameter]:
    """Parameters as every rank began with them."""
    torch.manual_seed(0)
    return dict(make_recipe(family, inputs, "debug", dict(changed)).build_model().named_parameters())
