"""Hyper-parameters of the host ranker and of its training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class RankerConfig:
    """TransAct's host ranker (papers: TransAct §3.1, §3.2), shrunk where a laptop needs it.

    Attributes:
        item_rows, user_rows, category_rows, surface_rows: rows of the hashed embeddings (collisions share a row).
        absent: vector of hash 0, the unseen user, cold item or missing category: 'learned' or 'zero'.
        surface_dropout: share of training requests whose candidates' surfaces are hidden, all of a request's: so that
            requests without surfaces, as a caller may send them, have a trained answer.
        cross_layers: full-rank DCN v2 layers over all features.
        hidden: widths of the fully connected layers before the heads.
        sequence_length: newest actions read, at most what the rows hold.
        negatives_per_request: rows without any action kept per request and epoch while training (0 = all). The
            loss corrects for it, so that probabilities stay calibrated.
        requests_per_batch: requests of one step of one worker.
        learning_rate: peak, at `reference_rows` rows a step; scaled by the square root of the rows a step has.
        warmup: share of all steps that the learning rate rises linearly; then it falls as a cosine.
        patience: validations without improvement before stopping; None = never.
    """

    item_rows: int = 20_000
    item_dim: int = 16
    user_rows: int = 10_000
    user_dim: int = 16
    category_rows: int = 5_000
    category_dim: int = 8
    surface_rows: int = 64
    surface_dim: int = 4
    surface_dropout: float = 0.1
    absent: str = "learned"
    cross_layers: int = 2
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.1

    sequence_length: int = 100
    negatives_per_request: int = 8
    requests_per_batch: int = 64
    shuffle_requests: int = 4_096
    validation_requests_per_batch: int = 32

    epochs: int = 3
    learning_rate: float = 0.0048
    reference_rows: int = 12_000
    warmup: float = 0.1
    weight_decay: float = 0.0
    patience: int | None = 2

    @property
    def window(self) -> int | None:
        """Newest actions that a batch holds, at most what the rows hold; None = all of those."""
        return self.sequence_length

    @classmethod
    def debug(cls) -> Self:
        """Trains in seconds."""
        return cls(**_DEBUG)


_DEBUG: dict[str, Any] = {
    "item_rows": 512,
    "user_rows": 256,
    "category_rows": 256,
    "hidden": (32,),
    "cross_layers": 1,
    "sequence_length": 20,
    "negatives_per_request": 6,
    "requests_per_batch": 16,
    "learning_rate": 0.03,
    "epochs": 2,
}
