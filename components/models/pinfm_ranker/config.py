"""Hyper-parameters of fine-tuning PinFM inside the host ranker; every ablation of the paper is the value of a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from components.errors import UserError
from components.models.pinfm.config import PinFMConfig
from components.models.ranker.config import _DEBUG
from components.models.transact.config import TransActConfig

CHOICES: dict[str, tuple[str, ...]] = {
    "base": ("tuned", "frozen", "scratch", "none"),
    "pinfm_fusion": ("early", "lite_mean", "lite_last"),
    "graph": ("vector+token", "vector", "none"),
}

TABLE_BITS = (32, 8, 4)

MOST_TOKENS = 2
"""Of a candidate behind a history: the learnable one and its own."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "noseq": {"sequence": "none", "base": "none"},
    "no PinFM": {"base": "none"},
    "TransAct's daily user vector": {"base": "frozen", "pinfm_fusion": "lite_last", "daily": True},
    "PinFM without TransAct": {"sequence": "none"},
    "Table 6: frozen": {"base": "frozen"},
    "scratch": {"base": "scratch"},
    "scratch at the ranker's learning rate": {"base": "scratch", "pinfm_learning_rate": 1.0},
    "tuned at the ranker's learning rate": {"pinfm_learning_rate": 1.0},
    "Table 1: lite-mean": {"pinfm_fusion": "lite_mean"},
    "Table 1: lite-last": {"pinfm_fusion": "lite_last"},
    "Table 1: no graph vector": {"graph": "none"},
    "Table 1: graph vector without the learnable token": {"graph": "vector"},
    "Table 2: neither CIR nor IDD": {"random_candidates": 0.0, "dropout_7d": 0.0, "dropout_28d": 0.0},
    "Table 2: CIR without IDD": {"dropout_7d": 0.0, "dropout_28d": 0.0},
    "IDD without CIR": {"random_candidates": 0.0},
    "Table 3: no sequence loss": {"sequence_loss": 0.0},
    "no ranking loss of the module": {"module_loss": 0.0, "alignment_loss": 0.0},
    "no alignment": {"alignment_loss": 0.0},
    "features behind a gate": {"gate": True},
    "rows that the base has not seen": {"unseen_rows": True},
    "id table in int8": {"table_bits": 8},
    "id table in int4": {"table_bits": 4},
}
"""Rows of the evaluation's report."""


@dataclass(frozen=True, kw_only=True)
class PinFMRankerConfig(TransActConfig):
    """PinFM, sections 3.3 and 3.4, beside what `TransActConfig` says of the ranker and of TransAct in it.

    Attributes:
        pinfm: sizes of the base; the recipe takes them from the base's artifact.
        base: 'tuned' starts from the pretrained weights and trains them, 'frozen' keeps them, 'scratch' has its sizes
            alone, 'none' is the ranker without PinFM.
        pinfm_fusion: 'early' puts the candidate behind the history, its output and its id's embedding go to the
            ranker; 'lite_mean' and 'lite_last' are the mean and the last of the history's outputs.
        graph: GraphSAGE-LT: the candidate's item vector, projected, is added to its token; a learnable token stands
            before it. Early fusion alone.
        pinfm_events: newest events read, at most the rows' and one base segment's.
        daily: read only what lies before the request's UTC midnight, as a nightly batch's vector of the user would.
            Batches then hold all actions of a row, so that those of the day displace none of before, as long as both
            fit into it.
        gate: the module's features reach the ranker through factors that begin at zero: it starts as the one without.
        slots: keys that a candidate sees at most, its own included: its tokens displace the oldest events (DCAT's
            rotation). None: all events.
        pinfm_learning_rate: of the base's parameters, as a share of the ranker's.
        module_loss: weight of the ranking loss of the module's own heads; `alignment_loss`: of the mean squared
            difference between their predictions and the ranker's; `sequence_loss`: of the next-token loss on the
            histories of the batch, over `sequence_positions` random moments.
        random_candidates: CIR: share of candidates whose id is a random one to the module while training.
        dropout_7d, dropout_28d: IDD: dropout of the module's outputs for items younger than 7 days, or than 28.
        unseen_rows: train only on requests that are later than what the base was pretrained on (its `hold_out_days`),
            whatever `base` is.
        table_bits: of a value of the id table in the artifact that serves: 32, or 8 or 4 (rows between their smallest
            and largest value); training always has 32.
    """

    pinfm: PinFMConfig | None = None
    base: str = "tuned"
    pinfm_fusion: str = "early"
    graph: str = "vector+token"
    pinfm_events: int = 64
    daily: bool = False
    gate: bool = False
    slots: int | None = None
    pinfm_learning_rate: float = 0.1
    module_loss: float = 0.1
    alignment_loss: float = 0.1
    sequence_loss: float = 0.01
    sequence_positions: int = 512
    random_candidates: float = 0.1
    dropout_7d: float = 0.7
    dropout_28d: float = 0.5
    unseen_rows: bool = False
    table_bits: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.pinfm, dict):
            object.__setattr__(self, "pinfm", PinFMConfig(**self.pinfm))
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise UserError(f"{field} is '{getattr(self, field)}'", f"one of: {', '.join(choices)}")
        if self.table_bits not in TABLE_BITS:
            raise UserError(f"table_bits is {self.table_bits}", f"one of: {', '.join(map(str, TABLE_BITS))}")
        for field in ("dropout_7d", "dropout_28d"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}", "give a share from 0 to less than 1")
        if not 0 <= self.random_candidates <= 1:
            raise UserError(f"random_candidates is {self.random_candidates}", "give a share from 0 to 1")
        if self.slots is not None and self.slots <= MOST_TOKENS:
            raise UserError(
                f"slots is {self.slots}", f"give more than the {MOST_TOKENS} tokens of a candidate, or none"
            )
        if self.alignment_loss and not self.module_loss:
            raise UserError("alignment_loss needs the module's own predictions", "give module_loss a weight too")

    @property
    def window(self) -> int | None:
        return None if self.daily else super().window

    @classmethod
    def debug(cls) -> Self:
        return cls(**_DEBUG, layers=1, first_k=4, pinfm_events=16)
