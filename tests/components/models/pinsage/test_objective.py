"""The losses against their formulas, written out."""

import numpy as np
import torch

from components.models.pinsage.objective import cross_entropy, max_margin, scores

POSITIVE = torch.tensor([1.0, 0.5])
NEGATIVE = torch.tensor([[0.95, 0.2, 3.0], [0.45, 0.6, -1.0]])
ALLOWED = torch.tensor([[True, True, False], [True, True, True]])


def test_max_margin_is_equation_1_over_the_allowed_negatives():
    got = max_margin(POSITIVE, NEGATIVE, ALLOWED, margin=0.1)
    torch.testing.assert_close(got, torch.tensor([0.05 / 2, (0.05 + 0.2) / 3]))


def test_cross_entropy_is_minus_log_of_the_positives_share_among_the_allowed():
    got = cross_entropy(POSITIVE, NEGATIVE, ALLOWED)
    e = np.exp
    wanted = [-np.log(e(1) / (e(1) + e(0.95) + e(0.2))), -np.log(e(0.5) / (e(0.5) + e(0.45) + e(0.6) + e(-1)))]
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float32))


def test_a_query_whose_negatives_are_all_forbidden_gives_no_loss_and_a_finite_gradient():
    positive, negative = POSITIVE.clone().requires_grad_(), NEGATIVE.clone().requires_grad_()
    forbidden = torch.zeros_like(ALLOWED)
    (max_margin(positive, negative, forbidden, 0.1) + cross_entropy(positive, negative, forbidden)).sum().backward()
    assert torch.isfinite(positive.grad).all()
    assert torch.isfinite(negative.grad).all()
    assert cross_entropy(POSITIVE, NEGATIVE, forbidden).abs().max() < 1e-6


def test_scores_are_dot_products_with_shared_and_own_negatives():
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    query, positive, shared = torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([5, 6, 1])
    hard = torch.tensor([[6, 0], [3, 5]])
    near, far = scores(z, query, positive, shared, hard)
    for b in range(2):
        torch.testing.assert_close(near[b], z[query[b]] @ z[positive[b]])
        wanted = torch.stack([z[query[b]] @ z[n] for n in [*shared.tolist(), *hard[b].tolist()]])
        torch.testing.assert_close(far[b], wanted)
