"""Losses and measures against their definitions."""

import math

import pytest
import torch
from torch.nn import functional as F

from components.models.sasrec.objective import clashes, hits_and_ndcg, pair_loss, weigh_negatives


def test_with_every_item_as_a_negative_once_it_is_the_full_softmax():
    torch.manual_seed(0)
    logits, target = torch.randn(4, 9), torch.tensor([2, 0, 8, 5])
    everything = torch.arange(9)
    clash = clashes(torch.arange(4), target, everything, 4)
    against = weigh_negatives("softmax", logits, torch.zeros(9), clash)
    loss = pair_loss("softmax", logits[torch.arange(4), target], against)
    torch.testing.assert_close(loss, F.cross_entropy(logits, target))


def test_sampled_softmax_is_right_in_expectation():
    torch.manual_seed(0)
    logits, q = torch.randn(1, 50), torch.softmax(torch.randn(50), 0)
    drawn = torch.multinomial(q, 200_000, replacement=True)
    clash = torch.zeros(1, len(drawn), dtype=torch.bool)
    sampled = weigh_negatives("softmax", logits[:, drawn], torch.log(len(drawn) * q[drawn]), clash)
    torch.testing.assert_close(sampled, torch.logsumexp(logits, 1), atol=0.02, rtol=0)


def test_a_negative_that_the_user_chose_next_does_not_count():
    negative = torch.tensor([4, 7, 4])
    clash = clashes(torch.tensor([0, 0, 1]), torch.tensor([4, 5, 7]), negative, 3)
    assert clash.tolist() == [[True, False, True], [False, True, False], [False, False, False]]


def test_binary_loss_is_the_mean_over_negatives():
    positive, negative = torch.tensor([0.3]), torch.tensor([[1.0, -2.0, 5.0]])
    clash = torch.tensor([[False, False, True]])
    expected = F.softplus(-positive) + (F.softplus(torch.tensor(1.0)) + F.softplus(torch.tensor(-2.0))) / 2
    against = weigh_negatives("bce", negative, torch.zeros(3), clash)
    torch.testing.assert_close(pair_loss("bce", positive, against), expected[0])


def test_measures_of_sets():
    top = torch.tensor([[5, 1, 9], [2, 3, 4], [6, 7, 8]])
    query, target = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1, 9, 2, 77, 1])
    hit, ndcg = hits_and_ndcg(top, query, target, 3)
    assert hit.tolist() == [1, 1, 0]
    ideal = 1 + 1 / math.log2(3)
    assert ndcg.tolist() == pytest.approx([(1 / math.log2(3) + 1 / 2) / ideal, 1 / ideal, 0])
