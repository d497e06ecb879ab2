"""Eqs. 1-2 by hand, and probabilities that survive the downsampling of negatives."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional as F

from components.contract import Contract
from components.errors import UserError
from components.history.items import ItemTable
from components.history.schema import FeatureSchema
from components.models.ranker.data import collate
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
        sampling_B=torch.where(labels.any(1), 1.0, 1.0 if rate is None else rate),
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
    bias = fitted(torch.zeros(1, 3), torch.ones(len(rows.labels_BH), 1), rows)
    assert torch.sigmoid(bias)[0, 0].item() == pytest.approx(positives / population, rel=1e-3)


@pytest.mark.parametrize(("stored", "shown", "negatives"), [(1.0, 40, 8), (0.5, 40, 8), (1.0, 6, 2)])
def test_every_head_is_calibrated_however_common_the_others_are(planted, stored, shown, negatives):
    """A head's negatives with another action are all kept; the loss used to take them for thinned ones too."""
    rows, truth, feature = correlated(np.random.default_rng(1), stored, 120_000 // shown, shown)
    items = ItemTable.load({f.rsplit("/", 1)[1]: f for f in planted.files("items")})
    schema = replace(FeatureSchema.load(planted.files("schema")[0]), heads=("click", "like", "hide"))
    kept = collate(rows, items, schema, negatives=negatives, rng=np.random.default_rng(2))
    assert float(kept.negative_rate_U.mean()) < 0.7
    weights = fitted(torch.zeros(2, 3), with_bias(kept.candidate_numeric_BF[:, 0]), kept)
    predicted = torch.sigmoid(with_bias(feature) @ weights).mean(0)
    torch.testing.assert_close(predicted / truth.mean(0), torch.ones(3), atol=0.03, rtol=0)


def correlated(rng, stored, requests, n):
    """Requests with P(click) ≈ 0.4, P(like) ≈ P(hide) ≈ 0.04, the data set having stored a share of the idle rows.

    Returns the rows, and of the population the labels [N, 3] and the one feature [N].
    """
    feature = rng.normal(size=(requests, n)).astype(np.float32)
    click = rng.random((requests, n)) < 1 / (1 + np.exp(0.45 - feature))
    like = rng.random((requests, n)) < 1 / (1 + np.exp(3.6 - feature))
    hide = rng.random((requests, n)) < 1 / (1 + np.exp(3.6 + feature))
    labels = click * 1 + like * 2 + hide * 4
    seen = (labels > 0) | (rng.random((requests, n)) < stored)

    def lists(values):
        return [row[kept].tolist() for row, kept in zip(values, seen, strict=True)]

    nothing = np.zeros((requests, n), np.int32)
    empty = pl.Series([[]] * requests, dtype=pl.List(pl.Int32))
    frame = pl.DataFrame(
        {
            "user_id": ["u"] * requests,
            "timestamp": pl.Series([0] * requests, dtype=pl.Datetime("us", "UTC")),
            **dict.fromkeys(("history_item", "history_action", "history_timestamp", "history_surface"), empty),
            **{f"candidate_{name}": lists(nothing) for name in ("item", "hash", "surface")},
            "candidate_numeric": [np.repeat(row, 2).tolist() for row in lists(feature)],
            "candidate_sampling": lists(np.where(labels > 0, 1.0, stored)),
            "labels": lists(labels),
            "user_hash": [0] * requests,
            "user_numeric": [[0.0]] * requests,
        }
    )
    happened = torch.tensor(labels.ravel()[:, None] >> np.arange(3) & 1, dtype=torch.float32)
    return frame.to_arrow(), happened, torch.from_numpy(feature.ravel())


def with_bias(feature):
    return torch.stack([torch.ones_like(feature), feature], 1)


def fitted(weights, x, rows):
    """Weights of the linear model of x that minimise the loss."""
    weights = weights.requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")
    loss = RankingLoss(contract())

    def closure():
        optimizer.zero_grad()
        value = loss(x @ weights, rows)
        value.backward()
        return value

    optimizer.step(closure)
    return weights.detach()
