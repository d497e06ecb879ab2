"""InfoNCE with in-batch negatives, against the formula written out pair by pair."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.models.pinfm.objective import by_loss, info_nce


def plain(h, z, tau, own, log_q, source, target) -> list[float]:
    """Equation 2: the positive against every candidate that is not the owner's, each over its chance of being there."""
    found = []
    for p, c in zip(source.tolist(), target.tolist(), strict=True):
        score = [float(h[p] @ z[k]) / tau for k in range(len(z))]
        negatives = sum(math.exp(score[k]) / math.exp(float(log_q[k])) for k in range(len(z)) if not own[p, k])
        found.append(-math.log(math.exp(score[c]) / (math.exp(score[c]) + negatives)))
    return found


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_each_pair_is_the_papers_formula(positions, candidates, seed, tau):
    rng = torch.Generator().manual_seed(seed)
    h, z = (torch.nn.functional.normalize(torch.randn(n, 4, generator=rng), dim=1) for n in (positions, candidates))
    own = torch.rand(positions, candidates, generator=rng) < 0.4
    log_q = torch.rand(candidates, generator=rng).log()
    source, target = (torch.randint(n, (7,), generator=rng) for n in (positions, candidates))
    own[source, target] = True
    each = info_nce(h, z, torch.tensor(tau), own, log_q, source, target)
    assert each.tolist() == pytest.approx(plain(h, z, tau, own, log_q, source, target), rel=1e-3, abs=1e-4)


def test_a_positive_without_any_negative_costs_nothing_and_has_a_gradient_of_zero():
    h = torch.nn.functional.normalize(torch.randn(1, 4), dim=1).requires_grad_()
    z = torch.nn.functional.normalize(torch.randn(2, 4), dim=1).requires_grad_()
    tau = torch.tensor(0.05, requires_grad=True)
    one, both = torch.zeros(1, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool)
    loss = info_nce(h, z, tau, both, torch.zeros(2), one, one).sum()
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(t.grad is not None and not bool(t.grad.any()) for t in (h, z, tau))


def test_correction_makes_the_loss_that_of_all_items_on_average():
    """Negatives that are there with chance q, each weighed by 1 / q: their sum is that over all items."""
    rng = torch.Generator().manual_seed(0)
    h, z = (torch.nn.functional.normalize(torch.randn(n, 8, generator=rng), dim=1) for n in (1, 50))
    chance = torch.rand(50, generator=rng) * 0.9 + 0.1
    chance[0] = 1.0
    tau, one = torch.tensor(0.5), torch.zeros(1, dtype=torch.int64)
    own = torch.zeros(1, 50, dtype=torch.bool)
    own[0, 0] = True

    def ratio(there, log_q):
        """Σ over negatives of e^{s − s⁺}, from the loss."""
        return float(torch.expm1(info_nce(h, z[there], tau, own[:, there], log_q, one, one))[0])

    everything = ratio(torch.ones(50, dtype=torch.bool), torch.zeros(50))
    drawn = [torch.rand(50, generator=rng) < chance for _ in range(3_000)]
    corrected = [ratio(there, chance[there].log()) for there in drawn]
    plainly = [ratio(there, torch.zeros(int(there.sum()))) for there in drawn]
    assert sum(corrected) / len(drawn) == pytest.approx(everything, rel=0.02)
    assert sum(plainly) / len(drawn) < 0.7 * everything


def test_under_bfloat16_the_loss_is_that_of_the_same_states_in_float32():
    rng = torch.Generator().manual_seed(0)
    h, z = (torch.nn.functional.normalize(torch.randn(n, 8, generator=rng), dim=1) for n in (5, 20))
    source = torch.arange(5)
    own = torch.nn.functional.one_hot(source, 20).bool()
    given = (torch.tensor(0.05), own, torch.zeros(20), source, source)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = info_nce(h, z, *given)
    assert torch.equal(rough, info_nce(h, z, *given))


def test_losses_are_added_by_kind():
    each, weight, kind = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.5, 0.5, 1.0]), torch.tensor([0, 0, 2])
    assert by_loss(each, weight, kind, 3).tolist() == [1.5, 0.0, 4.0]
