"""Two ranks under DDP: pairs of their own, one model."""

import numpy as np
import pytest
import torch

from components.generator.boards import planted_boards
from components.models.pinsage.config import PAPER
from components.recipe import Rank, make_recipe
from tests.components.models.pinsage.planted import recipe_inputs
from tests.ranks import begun, learned_together

VARIANTS = {"default": {}, "the paper's, short vectors trained": {**PAPER, "compact_by": "trained", "compact": 8}}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    planted = planted_boards(np.random.default_rng(0), topics=10, per_topic=10, boards=200, pairs=4000)
    return recipe_inputs(planted, tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def ranks(inputs, tmp_path_factory):
    return learned_together(tmp_path_factory.mktemp("ranks"), "pinsage", inputs, VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_two_ranks_stay_one_model_and_learn(ranks, inputs, name):
    one, two = (found[name] for found in ranks)
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert all(not torch.equal(p, one[n]) for n, p in begun("pinsage", inputs, VARIANTS[name]).items())


def test_ranks_have_pairs_of_their_own_in_as_many_steps(inputs):
    def weights(rank: Rank) -> list[int]:
        return [len(batch) for batch in make_recipe("pinsage", inputs, "debug").train_batches(rank)]

    halves = [weights(Rank(number, 2)) for number in range(2)]
    assert len(halves[0]) == len(halves[1]) > 0
    assert sum(weights(Rank(0, 1))) >= sum(map(sum, halves)) > sum(weights(Rank(0, 1))) - 2 * 256


def test_the_peak_of_the_learning_rate_grows_with_the_ranks(inputs, monkeypatch):
    recipe = make_recipe("pinsage", inputs, "debug")
    alone, together = (_peak(recipe, monkeypatch, ranks) for ranks in (1, 2))
    assert together == pytest.approx(2 * alone)


def _peak(recipe, monkeypatch, ranks: int) -> float:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: ranks)
    (optimization,) = recipe.optimizations(recipe.build_model(), 1)
    return optimization.optimizer.param_groups[0]["lr"]
