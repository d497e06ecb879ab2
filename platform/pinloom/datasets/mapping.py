"""How the files of a log fill the contract's tables: the part of the YAML under `source.tables`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.contract import ACTIONS_REQUIRED, TABLES

REQUIRED = {
    "actions": tuple(c for c in ACTIONS_REQUIRED if c not in ("event_id", "action")),
    "items": ("item_id",),
    "users": ("user_id",),
    "boards": ("board_id", "item_id"),
    "requests": ("request_id", "user_id", "timestamp", "item_ids"),
}
"""Contract columns that a mapping must fill (`event_id` has a default; `action` has several ways)."""

TIMES = {"actions": "timestamp", "boards": "timestamp", "requests": "timestamp", "items": "created_at"}


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TimeSpec(Section):
    """A column of times. Numbers count seconds, milliseconds or microseconds since 1970 (UTC).

    `iso` is text (`2022-04-10`, `2022-04-10 12:00:00.5`, `2022-04-10T12:00+02:00`; without an offset UTC) or a
    Parquet date or datetime column.
    """

    column: str
    unit: Literal["s", "ms", "us", "iso"] = "iso"


class RatingRule(Section):
    """Rows whose number in `column` lies in [at_least, below) become action `action`."""

    column: str
    action: str
    at_least: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> RatingRule:
        if self.at_least is None and self.below is None:
            raise ValueError("give at_least, below or both")
        return self


class TableMapping(Section):
    """How one set of files fills one contract table.

    Attributes:
        files: glob relative to `source.root`; `.parquet`, `.csv` or `.tsv` (also `.gz`).
        separator: of CSV files; default ',' ('\\t' for .tsv).
        header: column names of CSV files that have no header line.
        columns: contract column → source column.
        constants: contract column → value of every row.
        time: contract column → times.
        action_values: value of the column mapped to `action` → action, or null to leave such rows out; without it the
            values are the action names.
        feedback: action → 0/1 source column (wide one-hot feedback to one row per action).
        ratings: thresholds of a numeric column to actions.
        every_row: actions that each row stands for, whatever its feedback (the exposure itself).
        numeric_features, categorical_features, vector_features: name → source column, for items and users.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    files: str
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    header: tuple[str, ...] = ()
    columns: dict[str, str] = Field(default_factory=dict)
    constants: dict[str, str | float | int] = Field(default_factory=dict)
    time: dict[str, TimeSpec] = Field(default_factory=dict)
    action_values: dict[str, str | None] = Field(default_factory=dict)
    feedback: dict[str, str] = Field(default_factory=dict)
    ratings: tuple[RatingRule, ...] = ()
    every_row: tuple[str, ...] = ()
    numeric_features: dict[str, str] = Field(default_factory=dict)
    categorical_features: dict[str, str] = Field(default_factory=dict)
    vector_features: dict[str, str] = Field(default_factory=dict)

    @property
    def filled(self) -> set[str]:
        """Contract columns that this mapping fills."""
        return {*self.columns, *self.constants, *self.time}

    @property
    def features(self) -> set[str]:
        return {*self.numeric_features, *self.categorical_features, *self.vector_features}

    @property
    def named_actions(self) -> list[tuple[str, str]]:
        """(field, action) wherever the mapping names an action."""
        return [
            *((f"feedback.{a}", a) for a in self.feedback),
            *((f"ratings.{i}.action", r.action) for i, r in enumerate(self.ratings)),
            *(("every_row", a) for a in self.every_row),
            *((f"action_values.{v}", a) for v, a in self.action_values.items() if a is not None),
            *(("constants.action", str(a)) for c, a in self.constants.items() if c == "action"),
        ]


def problems(table: str, mapping: TableMapping, vocabulary: list[str]) -> list[str]:
    """What is wrong with a mapping, as far as can be said without looking at a file: 'field: what'."""
    if table not in TABLES:
        return [f"the contract has no table '{table}': {', '.join(TABLES)}"]
    known, time = list(TABLES[table]), TIMES.get(table)
    wrong = [f"{c}: not a column of {table} ({', '.join(known)})" for c in sorted(mapping.filled - set(known))]
    wrong += [
        f"{c} is not mapped: say where it comes from under `{'time' if c == time else 'columns'}`"
        for c in REQUIRED[table]
        if c not in mapping.filled
    ]
    wrong += [f"time.{c}: {c} holds no times" for c in mapping.time if c in known and c != time]
    wrong += [f"columns.{c}: a time needs its unit, map it under `time`" for c in mapping.columns if c == time]
    wrong += [
        f"{field}: '{action}' is not in the vocabulary of contract.actions ({', '.join(vocabulary)})"
        for field, action in mapping.named_actions
        if action not in vocabulary
    ]
    return wrong + _action_problems(table, mapping)


def _action_problems(table: str, mapping: TableMapping) -> list[str]:
    ways = [bool(mapping.feedback or mapping.ratings or mapping.every_row), "action" in mapping.filled]
    if table == "actions" and sum(ways) != 1:
        return [
            "say what happened in each row in one way: columns.action or constants.action, or any of feedback, "
            "ratings, every_row"
        ]
    if table != "actions" and (ways[0] or mapping.action_values):
        return ["feedback, ratings, every_row and action_values belong to table actions"]
    if table not in ("items", "users") and mapping.features:
        return ["features belong to tables items and users"]
    if mapping.action_values and "action" not in mapping.columns:
        return ["action_values needs columns.action"]
    return []
