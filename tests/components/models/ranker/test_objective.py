"""Eqs. 1-2 by hand, and probabilities that survive the downsampling of negatives."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from components.contract import Contract
from components.errors import UserError
from components.models.ranker.objective import RankingLoss


def contract(**extra):
    return Contract.model_validate(
        {
            "name": "c",
            "actions": [
                {"name": "click", "role": "positive"},
                {"name": "save", "role": "positive"},
                {"name": "hide", "role": "negative"},
                {"name": "impression", "role": "impression"},
            ],
            "ties": "ordered",
            "splits": {"burn_in": "2020-01-01", "validation": "2020-02-01", "test": "2020-03-01", "end": "2020-04-01"},
            **extra,
        }
    )


def batch(labels, weights=None, rate=None):
    labels = torch.tensor(labels, dtype=torch.float32)
    users = len(labels)
    return SimpleNamespace(
        labels_BH=labels,
        row_of_B=torch.arange(users),
        user_weight_U=torch.ones(users) if weights is None else torch.tensor(weights),
        negative_rate_U=torch.ones(users) if rate is None else torch.full((users,), rate),
    )


def test_without_weights_it_is_plain_cross_entropy():
    rows = batch([[1, 0, 0], [0, 0, 0], [1, 1, 0]])
    logits = torch.randn(3, 3)
    expected = F.binary_cross_entropy_with_logits(logits, rows.labels_BH, reduction="sum") / 3
    torch.testing.assert_close(RankingLoss(contract())(logits, rows), expected)


def test_the_matrix_weighs_heads_by_the_actions_of_a_row():
    weights = {"click": {"click": 2.0, "hide": 100.0, "no_action": 0.5}, "save": {"click": 0.0, "save": 3.0}}
    loss = RankingLoss(contract(label_weights=weights))
    rows = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1], [1, 1, 0]])
    expected = torch.tensor([[0.5, 1, 1], [2, 0, 1], [102, 0, 1], [100, 1, 1], [2, 3, 1]])
    torch.testing.assert_close(loss.row_weights(rows), expected)


def test_users_weigh_as_declared():
    loss, logits = RankingLoss(contract()), torch.randn(2, 3)
    labels = [[1, 0, 0], [0, 1, 0]]
    first, second = (loss(logits[i : i + 1], batch(labels[i : i + 1])) for i in range(2))
    torch.testing.assert_close(loss(logits, batch(labels, weights=[3.0, 0.5])), (3 * first + 0.5 * second) / 2)


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"clack": {}}, "names head 'clack'"), ({"click": {"impression": 1.0}}, "label_weights.click names impression")],
)
def test_weights_of_unknown_heads_or_actions_are_refused(weights, message):
    with pytest.raises(UserError, match=message):
        RankingLoss(contract(label_weights=weights))


def test_a_bias_learned_on_downsampled_rows_is_the_rate_of_the_population():
    population, positives, rate = 100_000, 2_000, 0.05
    kept = int((population - positives) * rate)
    rows = batch([[1, 0, 0]] * positives + [[0, 0, 0]] * kept, rate=rate)
    bias = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([bias], max_iter=100, line_search_fn="strong_wolfe")
    loss = RankingLoss(contract())

    def closure():
        optimizer.zero_grad()
        value = loss(bias.expand(len(rows.labels_BH), -1), rows)
        value.backward()
        return value

    optimizer.step(closure)
    assert torch.sigmoid(bias.detach())[0].item() == pytest.approx(positives / population, rel=1e-3)
