"""Hyper-parameters of PinSage. Every ablation is the value of one field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from components.errors import UserError

POOLING = ("importance", "mean", "max")
COMBINE = ("concat", "average")
LENGTHS = ("free", "one", "popular")
LOSSES = ("margin", "cross_entropy")
COMPACT = ("pca", "trained")

PAPER: dict[str, Any] = {
    "loss": "margin",
    "length": "free",
    "negative_power": 0.0,
    "log_q": False,
    "negatives": 500,
    "hard_negatives": 6,
    "compact_by": "pca",
}
"""Objective and negatives of the paper (section 3.3), where ours differ: see docs/models/pinsage.md."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "Table 1: max pooling": {"pooling": "max"},
    "Table 1: mean pooling": {"pooling": "mean"},
    "Table 1: mean pooling, hard negatives": {"pooling": "mean", "hard_negatives": 6},
    "hard negatives": {"hard_negatives": 6},
    "max-margin loss": {"loss": "margin"},
    "cross-entropy loss": {"loss": "cross_entropy"},
    "two layers": {"layers": 2},
    "500 negatives": {"negatives": 500},
    "projection by PCA": {"compact_by": "pca"},
    "trained projection": {"compact_by": "trained"},
    "the paper's objective": PAPER,
    "the paper's objective, mean pooling": {**PAPER, "pooling": "mean"},
    **{f"Table 4: T = {t}": {"neighbours": t} for t in (10, 20, 50)},
}
"""The paper's ablations that are a choice of the model, as rows of the evaluation's report."""


@dataclass(frozen=True, kw_only=True)
class PinSageConfig:
    """Ying et al. 2018, sections 3.2 to 3.4.

    Attributes:
        layers: convolutions K, each with weights of its own.
        hidden: width m of a convolution; `dim`: width d of the final vector.
        neighbours: T; the heaviest of each neighbourhood, their weights made to sum to 1 again.
        lift: a neighbour weighs its visits over (its number of boards)^lift; 0 = visits, as in the paper; 1 = how much
            more often than its popularity says it is met.
        rewalk: walk anew for every epoch after the first, as the step did but for the seed, which is mixed of the
            step's, the training's and the epoch's number; else all read the step's neighbourhoods.
        pooling: γ of Algorithm 1: 'importance' weighs neighbours by visits.
        combine: 'concat' of an item with its neighbourhood, or their 'average'.
        category_dim: width of a learned vector per value of each categorical column (0 = none): inductive all the same.
        category_rows: rows of the hashed table behind them.
        id_dim: width of a learned vector per item (0 = none). Items unseen in training then have an untrained one.
        length: of the final vector. 'free': the paper's, which may come to say popularity and little else; 'one': dot
            product is cosine; 'popular': all numbers but the last have length 1 and the last, positive, says how often
            an item is chosen, so that neither is learned at the expense of the other.
        loss: max-margin (Eq. 1), or softmax cross-entropy.
        temperature: divides the scores under cross-entropy.
        log_q: correct cross-entropy for how often a negative is drawn.
        negatives: drawn per batch and shared by all its queries.
        negative_power: negatives are drawn in proportion to (1 + number of boards)^power; 0 = uniformly from all items.
        positive_power: a pair's weight is divided by (number of items that its positive followed)^power.
        hard_negatives: most per pair, from the band of the query's walk; 0 = none.
        curriculum: epoch n draws n − 1 hard ones; else all of them from the start.
        compact: width of the short vectors that rankers read.
        compact_by: 'trained': the first `compact` numbers of a vector are trained to be one as well; 'pca'.
        batch: pairs of one step of one worker.
        steps_per_epoch: at most; None = all pairs.
        learning_rate: peak, for `reference_batch` pairs per step; scales linearly with them.
        decay: factor of the learning rate per epoch after the first, in which it warms up.
        validation_pairs: at most; those with the lowest hash.
    """

    layers: int = 1
    hidden: int = 64
    dim: int = 64
    neighbours: int = 20
    lift: float = 0.0
    rewalk: bool = False
    pooling: str = "importance"
    combine: str = "concat"
    category_dim: int = 16
    category_rows: int = 16_384
    id_dim: int = 0
    length: str = "popular"
    loss: str = "cross_entropy"
    margin: float = 0.3
    temperature: float = 0.1
    log_q: bool = True
    negatives: int = 2000
    negative_power: float = 0.75
    positive_power: float = 0.0
    hard_negatives: int = 0
    curriculum: bool = True
    compact: int = 32
    compact_by: str = "trained"
    batch: int = 8192
    steps_per_epoch: int | None = 75
    shuffle_pairs: int = 1_000_000
    epochs: int = 4
    learning_rate: float = 0.01
    reference_batch: int = 8192
    decay: float = 0.7
    weight_decay: float = 0.0
    patience: int | None = 3
    validation_pairs: int = 5_000

    def __post_init__(self) -> None:
        known = {"pooling": POOLING, "combine": COMBINE, "length": LENGTHS, "loss": LOSSES, "compact_by": COMPACT}
        for field, choices in known.items():
            if getattr(self, field) not in choices:
                raise UserError(f"{field} is '{getattr(self, field)}'", f"one of: {', '.join(choices)}")
        if self.layers < 1 or self.neighbours < 1:
            raise UserError("layers and neighbours must be at least 1", "the paper has 2 layers and 50 neighbours")

    @property
    def trained_short(self) -> int:
        """How many numbers of a vector `compact_by=trained` trains as one of their own; popularity is none of them."""
        return min(self.compact, self.dim - (self.length == "popular"))

    @classmethod
    def debug(cls) -> Self:
        """Trains in seconds."""
        return cls(
            layers=2,
            hidden=32,
            dim=16,
            neighbours=10,
            category_dim=4,
            category_rows=256,
            negatives=100,
            batch=256,
            reference_batch=256,
            learning_rate=5e-3,
            steps_per_epoch=20,
            epochs=3,
        )
