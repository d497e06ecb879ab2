"""Names, order and sizes of the features of ranking rows: written once by `features`, read by models and serving."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

EXAMPLE_COLUMNS = {
    "request_id": "str",
    "user_id": "str",
    "timestamp": "UTC µs: moment of the request; everything in the row was known strictly before it",
    "history_item": "list[i32] ≤ sequence_length, newest first: rows of the item table",
    "history_action": "list[i16] action index of the contract (1…; 0 = padding)",
    "history_timestamp": "list[i64] µs since epoch, < timestamp",
    "history_surface": "list[i32] id_hash of the surface, 0 = none",
    "candidate_item": "list[i32] [n] rows of the item table, 0 = unknown item",
    "candidate_hash": "list[i32] [n] id_hash of the item id; 0 when no positive action was ever seen before (cold)",
    "candidate_surface": "list[i32] [n] id_hash of the surface, 0 = none",
    "candidate_numeric": "list[f32] [n × len(candidate_numeric)] row-major",
    "candidate_sampling": "list[f32] [n] probability with which the row was kept",
    "labels": "list[i32] [n] bit h set = head h happened",
    "user_hash": "i32 id_hash of the user id; 0 when the user has no history",
    "user_numeric": "list[f32] [len(user_numeric)]",
}
"""Parquet columns of `examples`: one row per request, so that a user's history is stored and read once."""


@dataclass(frozen=True)
class FeatureSchema:
    """What the numbers of a ranking row mean.

    Attributes:
        service: name of the Feast feature service, with its version (`ranking_v2`).
        actions: action names; index in a history = position + 1.
        candidate_numeric: per candidate: item statistics as of the last UTC midnight, then (user × item) and
            (user × cross) counts and recencies from the user's full history.
        item_numeric: columns of the item table's `numeric.npy`, a prefix of `candidate_numeric`.
        categorical: columns of the item table's `categorical.npy` (hashes).
        crosses: those of `categorical` for which (user × value) is counted.
        positive: action indices that the counts count.
        exposures: action indices that never enter a history.
        max_history: newest actions of a user that the counts see.
        ordered_ties: whether actions of one user with equal times are ordered.
    """

    service: str
    heads: tuple[str, ...]
    actions: tuple[str, ...]
    item_numeric: tuple[str, ...]
    candidate_numeric: tuple[str, ...]
    user_numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    crosses: tuple[str, ...]
    sequence_length: int = 100
    vector_dim: int = 32
    positive: tuple[int, ...] = ()
    exposures: tuple[int, ...] = ()
    max_history: int = 16_000
    ordered_ties: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> FeatureSchema:
        raw: dict[str, Any] = json.loads(text)
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> FeatureSchema:
        return cls.from_json(Path(path).read_text())


def id_hash(value: str | None) -> int:
    """Stable hash of an id or category, never 0 (0 = absent): 30 bits above a lowest bit that is always 1."""
    return (xxhash.xxh32_intdigest(value.encode()) & 0x7FFFFFFE) + 1 if value else 0
