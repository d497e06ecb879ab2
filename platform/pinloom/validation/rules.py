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


def holds(name: str, fact: str) -> Rule:
    """A rule that Polars decided: column `fact` is True. Data Docs have a section of that name."""
    return Rule(name, gxe.ExpectColumnValuesToBeInSet(column=fact, value_set=[True]))


def times(column: str, bounds: Bounds) -> tuple[Rule, Rule]:
    return (
        Rule(
            f"{column}.too_early",
            gxe.ExpectColumnValuesToBeBetween(column=column, min_value=bounds.earliest),
        ),
        Rule(
            f"{column}.in_future",
            gxe.ExpectColumnValuesToBeBetween(column=column, max_value=bounds.landed_at),
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
        holds("item_id.unknown", "item_id is a row of items"),
        holds("event_id.repeated", "event_id is new in its day"),
        holds("value.not_finite", "value is finite"),
        Rule("sampling_probability.out_of_range", probability),
    )

    def facts(frame: pl.DataFrame) -> pl.DataFrame:
        return _without_empty_strings(frame).with_columns(
            is_known(frame["item_id"], items).alias("item_id is a row of items"),
            is_first(frame, "event_id").alias("event_id is new in its day"),
            pl.col("value").is_finite().alias("value is finite"),
        )

    return Suite("actions", rules, facts)


def items(bounds: Bounds) -> Suite:
    rules = (
        missing("item_id"),
        holds("item_id.repeated", "item_id is new"),
        times("created_at", bounds)[1],
        holds("features.not_finite", "features are finite"),
    )

    def facts(frame: pl.DataFrame) -> pl.DataFrame:
        return _without_empty_strings(frame).with_columns(
            is_first(frame, "item_id").alias("item_id is new"),
            pl.all_horizontal(pl.lit(True), *_finite_features(frame)).alias("features are finite"),
        )

    return Suite("items", rules, facts)


def users() -> Suite:
    rules = (missing("user_id"), holds("user_id.repeated", "user_id is new"))
    return Suite(
        "users",
        rules,
        lambda f: _without_empty_strings(f).with_columns(is_first(f, "user_id").alias("user_id is new")),
    )


def boards(bounds: Bounds, items: pl.Series) -> Suite:
    rules = (
        missing("board_id"),
        missing("item_id"),
        *times("timestamp", bounds),
        holds("item_id.unknown", "item_id is a row of items"),
        holds("row.repeated", "row is new in its day"),
    )

    def facts(frame: pl.DataFrame) -> pl.DataFrame:
        return _without_empty_strings(frame).with_columns(
            is_known(frame["item_id"], items).alias("item_id is a row of items"),
            is_first(frame, "board_id", "item_id", "timestamp").alias("row is new in its day"),
        )

    return Suite("boards", rules, facts)


def requests(bounds: Bounds) -> Suite:
    rules = (
        *(missing(c) for c in ("request_id", "user_id", "timestamp")),
        *times("timestamp", bounds),
        holds("item_ids.missing", "item_ids has an item"),
    )
    return Suite(
        "requests",
        rules,
        lambda f: _without_empty_strings(f).with_columns(
            (pl.col("item_ids").list.len().fill_null(0) > 0).alias("item_ids has an item"),
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
