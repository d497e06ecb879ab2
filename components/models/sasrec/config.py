"""Hyper-parameters of SASRec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from components.errors import UserError

ABLATIONS: dict[str, dict[str, Any]] = {
    "the original's loss": {"loss": "bce"},
    "uniform negatives": {"negative_power": 0.0},
    "one layer": {"layers": 1},
    "the newest ten steps": {"length": 10},
}
"""Rows of the evaluation's report."""


@dataclass(frozen=True, kw_only=True)
class SASRecConfig:
    """The yardstick of sequence models: next-item prediction by a causal transformer over item ids.

    Attributes:
        length: newest steps read. A step is one action, or, where equal times are unordered, all actions at a time.
        loss: 'softmax' over the targets and sampled negatives with log-Q correction, or 'bce' (the original's).
        negatives: drawn per batch and shared by all its positions.
        negative_power: negatives are drawn in proportion to the items' training counts to this power (0 = uniform).
        users_per_batch: users of one step of one worker.
    """

    dim: int = 64
    layers: int = 2
    heads: int = 1
    ffn: int = 64
    dropout: float = 0.2
    length: int = 50
    loss: str = "softmax"
    negatives: int = 1_024
    negative_power: float = 0.75
    users_per_batch: int = 16
    shuffle_users: int = 10_000
    epochs: int = 30
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    patience: int | None = 6

    def __post_init__(self) -> None:
        if self.loss not in ("softmax", "bce"):
            raise UserError(f"loss is '{self.loss}'", "one of: softmax, bce")

    @classmethod
    def debug(cls) -> Self:
        """Trains in seconds."""
        return cls(dim=16, layers=1, ffn=16, length=20, negatives=128, users_per_batch=4, epochs=3)
