"""Rivals without a sequence. Each scores `Rows`; only the tree is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from components.errors import UserError
from components.evaluation.metrics import Floats
from components.evaluation.rows import Rows

POPULARITY = "log_positives_28d"
PERSONAL_COUNT, PERSONAL_DAYS = "log_user_item", "log_user_item_days"

TREE: dict[str, Any] = {
    "max_iter": 120,
    "learning_rate": 0.05,
    "max_leaf_nodes": 15,
    "l2_regularization": 10.0,
    "early_stopping": False,
}
"""Without the penalty a head with a few dozen choices diverges, and takes the final score with it."""

TREE_ROWS = 400_000
"""Training rows of the tree at most: more no longer changes it, only its time."""


def popularity(rows: Rows) -> NDArray[np.float32]:
    """Positive actions of everybody on the item in the 28 days before the request's midnight. [N]."""
    return rows.column(POPULARITY)


def personal_frequency(rows: Rows) -> NDArray[np.float32]:
    """How often this user chose this item before; then the more recent, then the more popular. [N]."""
    count = rows.column(PERSONAL_COUNT)
    recent = -rows.column(PERSONAL_DAYS)
    # Each later criterion only orders what the earlier ones leave equal.
    criteria = [np.unique(c, return_inverse=True)[1] for c in (count, recent, popularity(rows))]
    rank = np.lexsort(criteria[::-1])
    ordered = np.stack(criteria, axis=1)[rank]
    fresh = np.append(True, (np.diff(ordered, axis=0) != 0).any(axis=1))
    score = np.empty(len(rows), np.float32)
    score[rank] = np.cumsum(fresh) / len(rows)
    return score


@dataclass(frozen=True)
class Tree:
    """One gradient-boosted tree ensemble per head on the point-in-time counts of a row.

    Attributes:
        models: head → classifier; a head that never happened in training has none.
        rate: share of the exposures without action that are among the training rows.
    """

    models: Mapping[str, HistGradientBoostingClassifier]
    heads: tuple[str, ...]
    rate: float = 1.0

    @classmethod
    def train(cls, rows: Rows, seed: int = 0) -> Tree:
        """Fit to the training rows as they are; what they lack of the exposures is corrected when predicting.

        Of a head's negatives those with another action were all kept: they weigh `rate`, as if kept like the others.
        Weighing rows by the exposures they stand for would drown the few choices: such a tree ranks worse than
        popularity does.

        Raises:
            UserError: no head ever happened.
        """
        models = {}
        idle = ~rows.labels.any(axis=1)
        rate = float(idle.sum() / rows.weights[idle].sum()) if idle.any() else 1.0
        for h, head in enumerate(rows.schema.heads):
            happened = rows.labels[:, h]
            if happened.any() and not happened.all():
                tree = HistGradientBoostingClassifier(**TREE, random_state=seed)
                models[head] = tree.fit(rows.numeric, happened, np.where(idle | happened, 1.0, rate))
        if not models:
            raise UserError(
                "no candidate of the training split was ever chosen", "check the labels of the data set's YAML"
            )
        return cls(models, rows.schema.heads, rate)

    def predict(self, rows: Rows) -> Floats:
        """Probability per row and head, float64 [N, H]; 0 for a head that never happened in training."""
        predicted = np.zeros((len(rows), len(self.heads)))
        for h, head in enumerate(self.heads):
            if head in self.models:
                predicted[:, h] = self.models[head].predict_proba(rows.numeric)[:, 1]
        # Odds among the rows exceed those among all exposures by 1 / rate.
        corrected: Floats = predicted * self.rate / (1 - predicted * (1 - self.rate))
        return corrected
