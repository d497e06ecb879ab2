"""Hyper-parameters of TransAct; every ablation of the paper is one field."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from components.errors import UserError
from components.models.ranker.config import _DEBUG, RankerConfig

CHOICES: dict[str, tuple[str, ...]] = {
    "sequence": ("transact", "none", "wdl", "bst", "bst_positive"),
    "fusion": ("concat", "append", "none"),
    "encoder": ("transformer", "vanilla", "average", "cnn", "rnn", "lstm"),
    "position": ("none", "learned", "sinusoidal", "linear"),
    "readout": (
        "random",
        "first",
        "random_k",
        "first_k",
        "all",
        "max_pool",
        "first_k_max_pool",
        "all_max_pool",
    ),
    "absent": ("learned", "zero"),
}

BASELINES: dict[str, dict[str, Any]] = {
    "transact": {},
    "none": {},
    "wdl": {"encoder": "average", "fusion": "none", "time_window_hours": 0.0},
    "bst": {"fusion": "append", "position": "learned", "layers": 1, "readout": "all", "time_window_hours": 0.0},
}
BASELINES["bst_positive"] = {**BASELINES["bst"], "positive_only": True}
"""What a value of `sequence` fixes (Table 1 of the paper)."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "noseq": {"sequence": "none"},
    "Table 1: WDL and averaged actions": {"sequence": "wdl"},
    "Table 1: BST": {"sequence": "bst"},
    "Table 1: BST, positive actions": {"sequence": "bst_positive"},
    "append fusion": {"fusion": "append"},
    "no time window": {"time_window_hours": 0.0},
    **{f"Table 3: encoder {e}": {"encoder": e} for e in CHOICES["encoder"] if e != "transformer"},
    **{f"Table 4: read-out {r}": {"readout": r} for r in CHOICES["readout"] if r != "first_k_max_pool"},
    **{f"Table 10: positions {p}": {"position": p} for p in CHOICES["position"] if p != "none"},
}
"""Every ablation of the paper that is a choice of the model, as rows of the evaluation's report."""


@dataclass(frozen=True, kw_only=True)
class TransActConfig(RankerConfig):
    """Defaults are the paper's (§3.2; App. A, B).

    Attributes:
        sequence: the ranker's sequence part: 'transact', or a row of Table 1: 'none' (the ranker alone), 'wdl'
            (averaged actions), 'bst' and 'bst_positive' (candidate appended, learned positions, flattened output).
        fusion: 'concat' puts the candidate's vector into every token, 'append' adds it as one more token.
        encoder: Table 3. 'vanilla' reads item vectors alone; 'average', 'cnn', 'rnn', 'lstm' replace the transformer.
        position: Table 10.
        readout: Table 4; `first_k` is its K.
        time_window_hours: in training, actions younger than T ~ U(0, this) are hidden from attention (0 = none).
        keep_newest: the newest action stays visible whatever T is.
        positive_only: read positive actions alone.
        public_module: reproduce Pinterest's public module to the bit (`docs/models/transact.md`): padded positions
            count in the pooling and keep their outputs.
    """

    sequence: str = "transact"
    fusion: str = "concat"
    encoder: str = "transformer"
    position: str = "none"
    readout: str = "first_k_max_pool"
    first_k: int = 10
    action_dim: int = 32
    layers: int = 2
    attention_heads: int = 1
    ffn: int = 32
    sequence_dropout: float = 0.1
    norm_first: bool = False
    time_window_hours: float = 24.0
    keep_newest: bool = True
    positive_only: bool = False
    public_module: bool = False

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise UserError(f"{field} is '{getattr(self, field)}'", f"one of: {', '.join(choices)}")

    def effective(self) -> Self:
        """With what `sequence` fixes."""
        return replace(self, **BASELINES[self.sequence])

    @classmethod
    def debug(cls) -> Self:
        return cls(**_DEBUG, layers=1, first_k=4)
