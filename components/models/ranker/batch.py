"""A batch of requests: what is shared by a request's candidates is stored once and addressed by `row_of_B`.

Shapes: U requests, B candidates (all requests' candidates in one list), L history, D item vector, C categorical
columns, F candidate numerics, G user numerics, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from components.models.tensors import Tensors


@dataclass(frozen=True)
class Sequence(Tensors):
    """The users' newest actions before their requests, newest first.

    Attributes:
        vector_ULD: float32 item vectors, 0 = unknown item or padding.
        item_key_UL: int64 `components.history.keys.key` of the item, -1 = unknown item or padding.
        action_UL: int64 action index, 0 = padding.
        timestamp_UL: int64 µs since epoch.
        surface_UL: int64 `id_hash` of the surface, 0 = none.
        request_time_U: int64 µs since epoch.
    """

    vector_ULD: Tensor
    item_key_UL: Tensor
    action_UL: Tensor
    timestamp_UL: Tensor
    surface_UL: Tensor
    request_time_U: Tensor


@dataclass(frozen=True)
class RankingBatch(Tensors):
    """Everything the ranker reads, and the labels.

    Attributes:
        candidate_vector_BD: float32; candidate_hash_B: int64, 0 = cold; candidate_categorical_BC: int64 hashes;
        candidate_surface_B: int64 hash; candidate_numeric_BF: float32.
        candidate_key_B: int64 `components.history.keys.key` of the item, cold or not; -1 = unknown item.
        candidate_age_B: float32, days since the item's first moment; `NEVER_DAYS` when that is not known.
        user_hash_U: int64; user_weight_U: float32, weight of the user in the loss; user_numeric_UG: float32.
        row_of_B: int64 request of each candidate, not decreasing.
        labels_BH: float32, 1 = the head's action happened.
        negative_rate_U: float32, rate at which the loss takes the request's negatives as kept.
        sampling_B: float32, probability with which the row was kept.
    """

    sequence: Sequence
    candidate_vector_BD: Tensor
    candidate_key_B: Tensor
    candidate_hash_B: Tensor
    candidate_categorical_BC: Tensor
    candidate_surface_B: Tensor
    candidate_numeric_BF: Tensor
    candidate_age_B: Tensor
    user_hash_U: Tensor
    user_weight_U: Tensor
    user_numeric_UG: Tensor
    row_of_B: Tensor
    labels_BH: Tensor
    negative_rate_U: Tensor
    sampling_B: Tensor

    def __len__(self) -> int:
        """Number of candidates."""
        return len(self.row_of_B)

    @property
    def requests(self) -> int:
        return len(self.user_hash_U)
