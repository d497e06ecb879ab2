"""Hyper-parameters of PinFM's pretraining. Every ablation is the value of some fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from components.errors import UserError
from components.nn.decoder import DecoderConfig

TABLE_OPTIMIZERS = ("adagrad", "adam")

ABLATIONS: dict[str, dict[str, Any]] = {
    "next-token loss alone": {"multi_token": 0.0, "future_token": 0.0},
    "without multi-token loss": {"multi_token": 0.0},
    "without future-token loss": {"future_token": 0.0},
    "learned positions": {"position": "learned"},
    "HSTU decoder": {"block": "hstu", "position": "none"},
    "attention begins as GPT-2's": {"copy": 0.0},
    "one sub-table": {"tables": 1, "width": 128},
    "a tenth of the rows": {"rows": 2_000},
    "no logQ correction": {"log_q": False},
    "the same user's positives as negatives": {"exclude_same_user": False},
    "the last fortnight held out": {"hold_out_days": 14},
    "one epoch": {"epochs": 1},
    "twice the epochs": {"epochs": 6},
}
"""Rows of the evaluation's report."""


@dataclass(frozen=True, kw_only=True)
class PinFMConfig:
    """PinFM, sections 3.1 and 3.2.

    Attributes:
        tables, rows, width: J hashed sub-tables of R rows, w wide (the paper's: 8 × 80 M × 32).
        surfaces: rows of the hashed embedding of surfaces.
        dim, layers, heads, ffn, block, position, dropout: of the decoder, as in `DecoderConfig`.
        copy: an untrained attention layer adds so many times the mean of its layer-normed inputs, each √dim long (so
            that alike ones add up to copy · √dim, beside an event of length 1); HSTU's adds copy · √dim in the
            direction of that mean, however unlike they are; 0 = GPT-2's small random weights.
        length: L, events of a training segment.
        most_events: newest events of a user that are learned from.
        hold_out_days: pretraining stops so many days before the validation date: what users did then is left for a
            ranker to learn from that the base has not seen the answers to.
        next_token, multi_token, future_token: weights of the three losses; 0 = none.
        window: L′, steps ahead that the last two look. A step is one action, or where equal times are unordered all
            actions at a time.
        picks: targets drawn from that window for each position of the multi-token loss.
        downstream: L_d, events that a ranker will have: the future-token loss predicts from the last of them.
        temperature: at the start; `temperature_range`: what learning keeps it within.
        log_q: correct negatives for how often a batch has them.
        exclude_same_user: a user's own positives of the batch are not negatives to that user.
        batch: segments of one step of one worker.
        table_optimizer: 'adagrad' (one accumulator per row) or 'adam', both on sparse gradients.
        warmup: share of all steps in which the learning rates rise; they then fall to a tenth by a cosine.
        validation_queries: users asked about after each epoch, at most.
    """

    tables: int = 8
    rows: int = 20_000
    width: int = 16
    surfaces: int = 64
    dim: int = 64
    layers: int = 2
    heads: int = 2
    ffn: int = 256
    block: str = "gpt2"
    position: str = "rotary"
    dropout: float = 0.1
    copy: float = 3.0
    length: int = 128
    most_events: int = 16_000
    hold_out_days: int = 0
    next_token: float = 1.0
    multi_token: float = 0.5
    future_token: float = 0.5
    window: int = 16
    picks: int = 16
    downstream: int = 64
    temperature: float = 0.05
    temperature_range: tuple[float, float] = (0.01, 1.0)
    log_q: bool = True
    exclude_same_user: bool = True
    batch: int = 32
    shuffle_segments: int = 100_000
    epochs: int = 3
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    table_optimizer: str = "adagrad"
    table_learning_rate: float = 0.2
    warmup: float = 0.05
    patience: int | None = None
    validation_queries: int = 2_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature_range", tuple(self.temperature_range))
        low, high = self.temperature_range
        if not 0 < low < self.temperature < high:
            raise UserError(
                f"temperature {self.temperature} does not lie between {low} and {high}", "set `temperature_range`"
            )
        if self.table_optimizer not in TABLE_OPTIMIZERS:
            raise UserError(f"table_optimizer is '{self.table_optimizer}'", f"one of: {', '.join(TABLE_OPTIMIZERS)}")
        if self.hold_out_days < 0:
            raise UserError(f"hold_out_days is {self.hold_out_days}", "give a number of days, or 0")
        if not 0 < self.downstream < self.length:
            raise UserError(
                f"downstream is {self.downstream}, a segment has {self.length} events",
                "predict the future from fewer events than a segment has",
            )
        try:
            _ = self.decoder
        except ValueError as error:
            raise UserError(str(error), "see `components.nn.decoder_layer.DecoderConfig`") from None
        if not self.next_token + self.multi_token + self.future_token > 0:
            raise UserError("all three losses weigh nothing", "give one of next_token, multi_token, future_token")

    @property
    def decoder(self) -> DecoderConfig:
        """With a few positions more than a segment has: fine-tuning puts tokens behind it."""
        return DecoderConfig(
            dim=self.dim,
            layers=self.layers,
            heads=self.heads,
            ffn=self.ffn,
            block=self.block,
            position=self.position,
            max_length=self.length + 8,
            dropout=self.dropout,
        )

    @classmethod
    def debug(cls) -> Self:
        """Trains in seconds."""
        return cls(
            tables=4,
            rows=500,
            width=8,
            dim=32,
            heads=2,
            ffn=64,
            dropout=0.0,
            length=32,
            downstream=16,
            window=4,
            picks=4,
            batch=16,
            epochs=4,
            validation_queries=300,
        )
