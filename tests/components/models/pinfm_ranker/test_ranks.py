"""Two ranks under DDP: all that may learn gets a gradient on each, and both stay one model."""

import pytest
import torch

from components.models.pinfm_ranker.config import ABLATIONS
from tests.ranks import begun, learned_together

NAMES = ("full", "Table 6: frozen", "Table 1: lite-mean", "Table 3: no sequence loss", "PinFM without TransAct")
VARIANTS = {name: ABLATIONS.get(name, {}) for name in NAMES}


@pytest.fixture(scope="module")
def ranks(with_base, tmp_path_factory):
    return learned_together(tmp_path_factory.mktemp("ranks"), "pinfm_ranker", with_base, VARIANTS)


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_stay_one_model_and_learn(ranks, with_base, name):
    one, two = (found[name] for found in ranks)
    assert all(torch.equal(one[n], two[n]) for n in one)
    before = begun("pinfm_ranker", with_base, VARIANTS[name])
    moved = {n for n, p in before.items() if not torch.equal(p, one[n])}
    assert moved == {n for n, p in before.items() if p.requires_grad}
