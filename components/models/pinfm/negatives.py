"""What stands against a prediction: how often an item does, and which of the items are a user's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.models.pinfm.config import PinFMConfig
from components.models.pinfm.steps import Bools, Ints


@dataclass(frozen=True)
class ItemCounts:
    """How often each item was a positive.

    Attributes:
        key_I: int64, sorted; count_I: int64.
    """

    key_I: Ints
    count_I: Ints

    def probability(self, key: Ints) -> NDArray[np.float64]:
        """Share of all positives that each item is; an item never seen counts as one."""
        total = max(1, int(self.count_I.sum()))
        at = np.minimum(np.searchsorted(self.key_I, key), len(self.key_I) - 1)
        return np.where(self.key_I[at] == key, self.count_I[at], 1) / total

    def log_chance(self, key: Ints, positives: int) -> NDArray[np.float32]:
        """log(1 − (1 − p)^n): the chance that a batch with n positives has an item that is a share p of all."""
        share = np.minimum(self.probability(key), 0.5)
        return np.log(-np.expm1(positives * np.log1p(-share))).astype(np.float32)


@dataclass(frozen=True)
class Batched:
    """Positives of a batch and what predicts them. M events, C items, P sources, K (source, target) pairs, O owners.

    Attributes:
        item_C: different ids of the positives, sorted.
        source_P: events that predict; source_K, target_K: places in `source_P` and `item_C`.
        owner_P: owner of each source; own_OC: which items are the owner's, and so no negatives.
        log_q_C: log of the chance that a batch has the item among its negatives; 0 without the correction.
    """

    item_C: Ints
    source_P: Ints
    source_K: Ints
    target_K: Ints
    owner_P: Ints
    own_OC: Bools
    log_q_C: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        config: PinFMConfig,
        counts: ItemCounts,
        key_M: Ints,
        user_M: Ints,
        positive_M: Bools,
        source: Ints,
        target: Ints,
    ) -> Batched:
        """
        Args:
            user_M: any number, equal for events of one user.
            source, target: events of each pair; targets are positive.
        """
        item_C, place = np.unique(key_M[positive_M], return_inverse=True)
        column_M = np.full(len(key_M), -1)
        column_M[positive_M] = place
        source_P, source_K = np.unique(source, return_inverse=True)
        target_K = column_M[target]
        if config.exclude_same_user:
            user_M = np.unique(user_M, return_inverse=True)[1]
            owner_P, row, column = user_M[source_P], user_M[positive_M], place
            owners = int(user_M.max(initial=-1)) + 1
        else:
            owner_P, row, column = np.arange(len(source_P)), source_K, target_K
            owners = len(source_P)
        own_OC = np.zeros((owners, len(item_C)), np.bool_)
        own_OC[row, column] = True
        positives = int(positive_M.sum())
        log_q_C = counts.log_chance(item_C, positives) if config.log_q else np.zeros(len(item_C), np.float32)
        return cls(item_C, source_P, source_K, target_K, owner_P, own_OC, log_q_C)
