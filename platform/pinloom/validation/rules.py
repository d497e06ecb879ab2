"""The suites: what each row of a table must satisfy, as named rules, each one Great Expectations expectation.

Facts that need more than one column or another table (a known item, a first occurrence) are computed by Polars into
columns of their own, so that Great Expectations judges every rule and its Data Docs show every rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime

import great_expectations.expectations as gxe
import polars as pl
from great_expectations.expectations.expectation import Expectation

from components.contract import FEATURE_PREFIX, midnight
from pinloom.datasets import DatasetSpec
from pinloom.validation.days import DAY


@dataclass(frozen=True)
class Rule:
    """One thing that every row must satisfy.

    Attributes:
        name: `<column>.<what is wrong>`: what the quarantine's `rules` hold.
    """

    name: str
    expectation: Expectation

    @property
    def columns(self) -> tuple[str, ...]:
        named = (getattr(self.expectation, field, None) for field in ("column", "column_A", "column_B"))
        return tuple(c for c in named if c)


@dataclass(frozen=True)
class Suite:
    """The rules of one table and the facts that they look at.

    Attributes:
        facts: frame of the table → the same rows with the columns that the rules name.
    """

    table: str
    rules: tuple[Rule, ...]
    facts: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame


@dataclass(frozen=True)
class Bounds:
    """What rows are held against: the vocabulary, the earliest believable time, the moment at which they landed."""

    actions: tuple[str, ...]
    earliest: datetime
    landed_at: datetime

    @classmethod
    def of(cls, spec: DatasetSpec, landed_at: datetime) -> Bounds:
        earliest = midnight(date.fromisoformat(spec.validation.earliest))
        return cls(tuple(a.name for a in spec.contract.actions), earliest, landed_at)


def missing(column: str) -> Rule:
    return Rule(f"{column}.missing", gxe.ExpectColumnValuesToNotBeNull(column=column))


def holds(name: str, fact: str, says: str) -> Rule:
    """A rule that Polars decided: column `fact` is True."""
    return Rule(name, gxe.ExpectColumnValuesToBeInSet(column=fact, value_set=[True], notes=says))


def times(column: str, bounds: Bounds) -> tuple[Rule, Rule]:
    return (
        Rule(
            f"{column}.too_early",
            gxe.ExpectColumnValuesToBeBetween(column=column, min_value=bounds.earliest, notes="validation.earliest"),
        ),
        Rule(
            f"{column}.in_future",
            gxe.ExpectColumnValuesToBeBetween(column=column, max_value=bounds.landed_at, notes="the moment of landing"),
        ),
    )


def actions(bounds: Bounds, items: pl.Series) -> Suite:
    """Suite of `actions`; `items` are the ids of the published items."""
    probability = gxe.ExpectColumnValuesToBeBetween(
        column="sampling_probability", min_value=0.0, max_value=1.0, strict_min=True
    )
    rules = (
        *(missing(c) for c in ("event_id", "user_id", "item_id", "action", "timestamp")),
        Rule("action.unknown", gxe.ExpectColumnValuesToBeInSet(column="action", value_set=list(bounds.actions))),
        *times("timestamp", bounds),
        holds("item_id.unknown", "item_is_known", "each item_id is a row of items"),
        holds("event_id.repeated", "event_is_first", "an event_id occurs once in a day"),
        holds("value.not_finite", "value_is_finite", "value is a finite number, or null"),
        Rule("sampling_probability.out_of_range", probability),
    )

    def facts(frame: pl.DataFrame) -> pl.DataFrame:
        return _without_empty_strings(frame).with_columns(
            is_known(frame["item_id"], items).alias("item_is_known"),
            is_first(frame, "event_id").alias("event_is_first"),
            value_is_finite=pl.col("value").is_finite(),
        )

    return Suite("actions", rules, facts)


def items(bounds: Bounds) -> Suite:
    rules = (
        missing("item_id"),
        holds("item_id.repeated", "item_is_first", "an item_id occurs once"),
        times("created_at", bounds)[1],
        holds("features.not_finite", "features_are_finite", "numeric features are finite numbers, or null"),
    )

    def facts(frame: pl.DataFrame) -> pl.DataFrame:
        return _without_empty_strings(frame).with_columns(
            is_first(frame, "item_id").alias("item_is_first"),
            features_are_finite=pl.all_horizontal(pl.lit(True), *_finite_features(frame)),
        )

    return Suite("items", rules, facts)


def users() -> Suite:
    rules = (missing("user_id"), holds("user_id.repeated", "user_is_first", "a user_id occurs once"))
    return Suite(
        "users",
        rules,
        lambda f: _without_empty_strings(f).with_columns(is_first(f, "user_id").alias("user_is_first")),
    )


def boards(bounds: Bounds, items: pl.Series) -> Suite:
    rules = (
        missing("board_id"),
        missing("item_id"),
        *times("timestamp", bounds),
        holds("item_id.unknown", "item_is_known", "each item_id is a row of items"),
        holds("row.repeated", "row_is_first", "an item enters a board once at a time"),
    )

    def facts(frame: pl.DataFrame) -> pl.DataFrame:
        return _without_empty_strings(frame).with_columns(
            is_known(frame["item_id"], items).alias("item_is_known"),
            is_first(frame, "board_id", "item_id", "timestamp").alias("row_is_first"),
        )

    return Suite("boards", rules, facts)


def requests(bounds: Bounds) -> Suite:
    rules = (
        *(missing(c) for c in ("request_id", "user_id", "timestamp")),
        *times("timestamp", bounds),
        holds("item_ids.missing", "has_items", "a request shows at least one item"),
    )
    return Suite(
        "requests",
        rules,
        lambda f: _without_empty_strings(f).with_columns(
            has_items=pl.col("item_ids").list.len().fill_null(0) > 0,
        ),
    )


def is_known(ids: pl.Series, known: pl.Series) -> pl.Series:
    """Whether each id is in `known`; null where there is no id. [rows] bool."""
    return ids.is_in(known.implode())


def is_first(frame: pl.DataFrame, *key: str) -> pl.Series:
    """False on rows that repeat `key` within their day: among equals the first by time and content. [rows] bool.

    Neither the order of the source nor what else is in the frame has a say, so that a day judged alone and a day
    judged among others keep the same row. Rows without a key are nobody's repetition.
    """
    group = [c for c in (DAY, *key) if c in frame.columns]
    numbered = frame.with_row_index("row")
    repeated = numbered.filter(pl.struct(group).is_duplicated() & pl.all_horizontal(pl.col(key).is_not_null()))
    plain = [c for c, t in frame.schema.items() if not t.is_nested()]
    order = list(dict.fromkeys(c for c in ("timestamp", *plain) if c in frame.columns))
    again = repeated.sort(order, maintain_order=True).filter(~pl.struct(group).is_first_distinct())
    return ~numbered["row"].is_in(again["row"].implode())


def _without_empty_strings(frame: pl.DataFrame) -> pl.DataFrame:
    """An empty id is a missing id."""
    return frame.with_columns(pl.when(pl.col(pl.String) != "").then(pl.col(pl.String)))


def _finite_features(frame: pl.DataFrame) -> list[pl.Expr]:
    floats = [c for c, t in frame.schema.items() if c.startswith(FEATURE_PREFIX) and t.is_float()]
    return [pl.col(c).is_finite().fill_null(True) for c in floats]
