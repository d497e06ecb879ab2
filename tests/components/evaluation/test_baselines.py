import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from components.errors import UserError
from components.evaluation.baselines import Tree, personal_frequency, popularity
from components.evaluation.rows import Rows
from components.history.schema import FeatureSchema

NUMERIC = ("log_positives_28d", "log_user_item", "log_user_item_days")
SCHEMA = FeatureSchema("test_v1", ("buy", "coupon"), ("buy",), (), NUMERIC, (), (), ())


def make(numeric, labels, per_request: int = 10, sampling=None) -> Rows:
    numeric, labels = np.asarray(numeric, np.float32), np.asarray(labels, np.int32)
    n = len(labels)
    sampling = np.ones(n, np.float32) if sampling is None else np.asarray(sampling, np.float32)
    groups = range(0, n, per_request)
    frame = pl.DataFrame(
        {
            "request_id": [f"r{g}" for g in groups],
            "candidate_item": [list(range(g, min(g + per_request, n))) for g in groups],
            "candidate_numeric": [numeric[g : g + per_request].ravel().tolist() for g in groups],
            "candidate_sampling": [sampling[g : g + per_request].tolist() for g in groups],
            "labels": [labels[g : g + per_request].tolist() for g in groups],
        }
    )
    return Rows(frame, SCHEMA)


def test_personal_frequency_orders_by_count_then_recency_then_popularity():
    best_first = [[0, 3, 9], [9, 2, 1], [9, 2, 5], [7, 0, 7], [1, 0, 7]]
    score = personal_frequency(make(best_first, np.zeros(5), 5))
    assert (np.diff(score) < 0).all()
    assert popularity(make(best_first, np.zeros(5), 5)).tolist() == [0, 9, 9, 7, 1]


def test_rows_that_are_alike_score_alike():
    score = personal_frequency(make([[1, 1, 1], [1, 1, 1], [2, 1, 1]], np.zeros(3), 3))
    assert score[0] == score[1] < score[2]


def problem(seed: int, rare: float, n: int = 40_000):
    rng = np.random.default_rng(seed)
    numeric = rng.normal(size=(n, 3))
    buy = rng.random(n) < 1 / (1 + np.exp(3 - 1.5 * numeric[:, 1]))
    coupon = rng.random(n) < rare * np.exp(0.8 * numeric[:, 0])
    return numeric, buy.astype(int) + 2 * coupon


def test_a_head_with_a_few_dozen_choices_does_not_diverge():
    """It used to: its scores were worse than chance, and drowned those of all other heads in the final score."""
    tree = Tree.train(make(*problem(0, rare=0.0007)))
    held_out = make(*problem(1, rare=0.0007))
    predicted, labels = tree.predict(held_out), held_out.labels
    for head in range(2):
        assert roc_auc_score(labels[:, head], predicted[:, head]) > 0.6
        assert 0.3 < predicted[:, head].sum() / labels[:, head].sum() < 3


def test_predictions_are_corrected_for_exposures_that_were_not_kept():
    numeric, labels = problem(2, rare=0.01)
    kept = (labels > 0) | (np.random.default_rng(3).random(len(labels)) < 0.1)
    sampling = np.where(labels > 0, 1.0, 0.1)[kept]
    predicted = Tree.train(make(numeric[kept], labels[kept], sampling=sampling)).predict(make(*problem(4, rare=0.01)))
    assert predicted[:, 0].sum() / (problem(4, rare=0.01)[1] & 1).sum() == pytest.approx(1, abs=0.25)


def test_a_rare_head_is_calibrated_beside_a_common_one():
    rng = np.random.default_rng(5)
    numeric = rng.normal(size=(60_000, 3))
    labels = (rng.random(len(numeric)) < 0.4) + 2 * (rng.random(len(numeric)) < 0.04)
    kept = (labels > 0) | (rng.random(len(labels)) < 0.3)
    sampling = np.where(labels > 0, 1.0, 0.3)[kept]
    predicted = Tree.train(make(numeric[kept], labels[kept], sampling=sampling)).predict(make(numeric, labels))
    np.testing.assert_allclose(predicted.mean(0), [0.4, 0.04], rtol=0.04)


def test_without_any_choice_there_is_nothing_to_learn():
    with pytest.raises(UserError, match="was ever chosen"):
        Tree.train(make(np.zeros((20, 3)), np.zeros(20)))
