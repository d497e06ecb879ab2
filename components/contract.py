"""The action log: columns, types and vocabulary. The one source of truth.

Every table of the lake, every feature and every model batch is derived from the tables declared here.
A data set states in YAML how it fills them (`pinloom.datasets`); nothing else names its actions or columns.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal

import polars as pl
import xxhash
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from components.errors import UserError

TIMESTAMP = pl.Datetime("us", "UTC")

ACTIONS: dict[str, pl.DataType] = {
    "event_id": pl.String(),
    "user_id": pl.String(),
    "item_id": pl.String(),
    "action": pl.String(),
    "timestamp": TIMESTAMP,
    "surface": pl.String(),
    "session_id": pl.String(),
    "request_id": pl.String(),
    "value": pl.Float64(),
    "sampling_probability": pl.Float64(),
}
"""`sampling_probability`: chance with which the row was kept when exposures were downsampled (null = 1)."""

ACTIONS_REQUIRED = ("event_id", "user_id", "item_id", "action", "timestamp")

ITEMS: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "created_at": TIMESTAMP,
    "created_at_inferred": pl.Boolean(),
    "category": pl.String(),
    "title": pl.String(),
}
"""Plus any number of `features.*` columns (numeric, categorical string, or list of floats)."""

USERS: dict[str, pl.DataType] = {"user_id": pl.String()}
BOARDS: dict[str, pl.DataType] = {"board_id": pl.String(), "item_id": pl.String(), "timestamp": TIMESTAMP}

REQUESTS: dict[str, pl.DataType] = {
    "request_id": pl.String(),
    "user_id": pl.String(),
    "timestamp": TIMESTAMP,
    "item_ids": pl.List(pl.String()),
}
"""Optional: for a sample of requests everything that could have been shown (evaluation of full rankings)."""

TABLES: dict[str, dict[str, pl.DataType]] = {
    "actions": ACTIONS,
    "items": ITEMS,
    "users": USERS,
    "boards": BOARDS,
    "requests": REQUESTS,
}

FEATURE_PREFIX = "features."


class Role(StrEnum):
    POSITIVE = "positive"
    NEGATIVE = "negative"
    IMPRESSION = "impression"


class Ties(StrEnum):
    ORDERED = "ordered"
    UNORDERED = "unordered"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ActionSpec(_Frozen):
    """One word of the action vocabulary.

    Attributes:
        role: what the action says about the item; `impression` rows are exposures and never enter a history.
        head: name of the ranking head that predicts this action (default: its own name; none for impressions).
        utility: weight of that head in the final ranking score, negative for unwanted actions.
    """

    name: str
    role: Role
    head: str | None = None
    utility: float = 1.0

    @model_validator(mode="before")
    @classmethod
    def _default_head(cls, data: Any) -> Any:
        if isinstance(data, dict) and "head" not in data and data.get("role") != Role.IMPRESSION:
            return {**data, "head": data.get("name")}
        return data


Days = Annotated[int, Field(strict=True, ge=1)]


class Splits(_Frozen):
    """Half-open splits: burn-in, then train < validation <= … < test <= … < end.

    Either three dates (UTC midnights), the same for every snapshot; or the numbers of days of validation and test,
    counted back from the end of each snapshot (`as_of`), so that a growing log is learned from to its end.
    """

    burn_in: date
    validation: date | Days
    test: date | Days
    end: date | None = None

    @field_validator("validation", "test", mode="before")
    @classmethod
    def _some_days(cls, said: Any) -> Any:
        # Else what is no number of days is read as a moment: 0 is 1970-01-01.
        if isinstance(said, int | float) and (type(said) is not int or said < 1):
            raise ValueError(f"{said} is no date and no number of days (1 or more)")
        return said

    @model_validator(mode="after")
    def _ordered(self) -> Splits:
        days = (self.burn_in, self.validation, self.test, self.end)
        if self.rolling:
            if isinstance(self.validation, date) or isinstance(self.test, date) or self.end is not None:
                raise ValueError(
                    "validation and test are both dates, with an end; or both numbers of days (1 or more), without"
                )
        elif self.end is None:
            raise ValueError("splits by date need an end")
        elif any(a >= b for a, b in pairwise(d for d in days if isinstance(d, date))):
            raise ValueError("splits must satisfy burn_in < validation < test < end")
        return self

    @property
    def rolling(self) -> bool:
        return isinstance(self.validation, int) or isinstance(self.test, int)

    def as_of(self, day: date) -> Splits:
        """The splits of a snapshot whose log ends at midnight of `day`.

        Raises:
            UserError: the log is too short to have a day to train on.
        """
        if not (isinstance(self.validation, int) and isinstance(self.test, int)):
            return self
        test = day - timedelta(days=self.test)
        validation = test - timedelta(days=self.validation)
        if validation <= self.burn_in:
            raise UserError(
                f"the log ends at {day}: with {self.validation} days of validation and {self.test} of test nothing "
                f"after the burn-in ({self.burn_in}) is left to train on",
                "ingest more days, or shorten `contract.splits` of the data set",
            )
        return Splits(burn_in=self.burn_in, validation=validation, test=test, end=day)

    def interval(self, split: str) -> tuple[datetime, datetime]:
        """[start, stop) of 'train', 'validation' or 'test' as aware datetimes.

        Raises:
            UserError: the splits are counted back from a snapshot, and this is read before there is one.
        """
        if not (isinstance(self.validation, date) and isinstance(self.test, date) and self.end):
            raise UserError(
                f"the {split} split is counted back from a snapshot, and is read before there is one",
                "give `contract.splits` of the data set as dates",
            )
        days = {
            "train": (self.burn_in, self.validation),
            "validation": (self.validation, self.test),
            "test": (self.test, self.end),
        }[split]
        return midnight(days[0]), midnight(days[1])


class Contract(_Frozen):
    """What a data set declares about its meaning; the part of its YAML that models and features read.

    Attributes:
        actions: the vocabulary, in the order that fixes action indices (index 0 is reserved for padding).
        ties: whether rows of one user with equal timestamps are ordered.
        session_gap_minutes: inactivity after which a new session (and, without request ids, request) begins.
        label_weights: TransAct's matrix M[head][action]; a missing entry is 1 on the head's own action.
            `no_action` (default 1) is the weight of rows in which nothing happened that has an entry.
        user_weights: {user feature: {value: weight}}; the weights of a user multiply.
        exposures: whether impressions were logged where they happened, or inferred from other records; reports call
            them so.
        buckets: number of user buckets of every table sorted by user.
        max_history: newest actions kept per user.
    """

    name: str
    actions: tuple[ActionSpec, ...]
    ties: Ties
    session_gap_minutes: float = 30.0
    splits: Splits
    label_weights: dict[str, dict[str, float]] = Field(default_factory=dict)
    user_weights: dict[str, dict[str, float]] = Field(default_factory=dict)
    exposures: Literal["logged", "inferred"] = "logged"
    buckets: int = Field(default=16, ge=1)
    max_history: int = Field(default=16_000, ge=1)

    @field_validator("actions")
    @classmethod
    def _unique(cls, actions: tuple[ActionSpec, ...]) -> tuple[ActionSpec, ...]:
        names = [a.name for a in actions]
        if len(set(names)) != len(names):
            raise ValueError(f"action names repeat: {sorted(n for n in names if names.count(n) > 1)}")
        if not any(a.role is Role.POSITIVE for a in actions):
            raise ValueError("no action has role 'positive': nothing to learn")
        return actions

    @cached_property
    def action_index(self) -> dict[str, int]:
        """Action name to index from 1 in a history; 0 is padding."""
        return {a.name: i for i, a in enumerate(self.actions, start=1)}

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """Ranking heads in order of first appearance."""
        return tuple(dict.fromkeys(a.head for a in self.actions if a.head))

    @cached_property
    def head_utility(self) -> dict[str, float]:
        return {h: next(a.utility for a in self.actions if a.head == h) for h in self.heads}

    def names(self, *roles: Role) -> list[str]:
        """Action names having one of the roles."""
        return [a.name for a in self.actions if a.role in roles]

    def indices(self, *roles: Role) -> list[int]:
        """Indices in a history of the actions having one of the roles."""
        return [self.action_index[name] for name in self.names(*roles)]

    def actions_of(self, head: str) -> list[str]:
        return [a.name for a in self.actions if a.head == head]


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def user_bucket(user_id: str, buckets: int) -> int:
    """xxh64(user_id) mod buckets: stable across processes, versions and machines."""
    return xxhash.xxh64_intdigest(user_id.encode()) % buckets


def bucket_expr(user_ids: pl.Series, buckets: int) -> pl.Series:
    """Bucket of each user of a column, hashed once per distinct user. Returns [rows] UInt32."""
    distinct = user_ids.unique()
    table = pl.DataFrame(
        {"u": distinct, "b": [user_bucket(u, buckets) for u in distinct]},
        schema={"u": pl.String, "b": pl.UInt32},
    )
    return pl.DataFrame({"u": user_ids}).join(table, on="u", how="left", maintain_order="left")["b"].alias("bucket")
