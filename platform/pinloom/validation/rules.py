"""The suites: what each row of a table must satisfy, as named rules, each one Great Expectations expectation.

Facts that need more than one column or another table (a known item, a first occurrence) are computed by Polars into
columns of their own, so that Great Expectations judges every rule and its Data Docs show every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

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
        facts: columns that rules name beside the table's own. An empty id counts as a missing one: it is null here.
    """

    table: str
    rules: tuple[Rule, ...]
    facts: Callable[[pl.DataFrame], Iterable[pl.Series]]

    def look(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows of `frame` as the rules see them: with the facts."""
        seen = frame.with_columns(pl.when(pl.col(pl.String) != "").then(pl.col(pl.String)))
        return seen.with_columns(*self.facts(seen))


@dataclass(frozen=True)
class Bounds:
    """What rows are held against: the vocabulary, the earliest believable time, the moment at which they landed."""

    actions: tuple[str, ...]
    earliest: datetime
    landed_at: datetime

    @classmethod
    def of(cls, spec: DatasetSpec, landed_at: datetime) -> Bounds:
        return cls(tuple(a.name for a in spec.contract.actions), midnight(spec.validation.earliest), landed_at)


def missing(column: str) -> Rule:
    return Rule(f"{column}.missing", gxe.ExpectColumnValuesToNotBeNull(column=column))


def holds(name: str, fact: str) -> Rule:
    """A rule that Polars decided: column `fact` is True. Data Docs have a section of that name."""
    return Rule(name, gxe.ExpectColumnValuesToBeInSet(column=fact, value_set=[True]))


def times(column: str, bounds: Bounds) -> tuple[Rule, Rule]:
    """Neither before anything can have happened nor after it landed."""
    early = gxe.ExpectColumnValuesToBeBetween(column=column, min_value=bounds.earliest)
    late = gxe.ExpectColumnValuesToBeBetween(column=column, max_value=bounds.landed_at)
    return Rule(f"{column}.too_early", early), Rule(f"{column}.in_future", late)


def actions(bounds: Bounds, items: pl.Series) -> Suite:
    """Suite of `actions`; `items` are the ids of the published items."""
    rules = (
        *(missing(c) for c in ("event_id", "user_id", "item_id", "action", "timestamp")),
        Rule("action.unknown", gxe.ExpectColumnValuesToBeInSet(column="action", value_set=list(bounds.actions))),
        *times("timestamp", bounds),
        holds("item_id.unknown", "item_id is a row of items"),
        holds("event_id.repeated", "event_id is new in its day"),
        holds("value.not_finite", "value is finite"),
        holds("sampling_probability.out_of_range", "sampling_probability is in (0, 1]"),
    )

    def facts(frame: pl.DataFrame) -> Iterable[pl.Series]:
        probability = frame["sampling_probability"]
        yield is_known(frame["item_id"], items).alias("item_id is a row of items")
        yield is_first(frame, "event_id").alias("event_id is new in its day")
        yield frame["value"].is_finite().alias("value is finite")
        yield probability.is_between(0, 1, closed="right").alias("sampling_probability is in (0, 1]")

    return Suite("actions", rules, facts)


def items(bounds: Bounds) -> Suite:
    """Suite of `items`: unique, born before they landed, described by numbers that are numbers."""
    rules = (
        missing("item_id"),
        holds("item_id.repeated", "item_id is new"),
        times("created_at", bounds)[1],
        holds("features.not_finite", "features are finite"),
    )

    def facts(frame: pl.DataFrame) -> Iterable[pl.Series]:
        yield is_first(frame, "item_id").alias("item_id is new")
        yield features_are_finite(frame).alias("features are finite")

    return Suite("items", rules, facts)


def users() -> Suite:
    """Suite of `users`: unique."""
    rules = (missing("user_id"), holds("user_id.repeated", "user_id is new"))
    return Suite("users", rules, lambda frame: [is_first(frame, "user_id").alias("user_id is new")])


def boards(bounds: Bounds, items: pl.Series) -> Suite:
    """Suite of `boards`: a known item enters a board once at a time; when it did may be unknown."""
    rules = (
        missing("board_id"),
        missing("item_id"),
        *times("timestamp", bounds),
        holds("item_id.unknown", "item_id is a row of items"),
        holds("row.repeated", "row is new in its day"),
    )

    def facts(frame: pl.DataFrame) -> Iterable[pl.Series]:
        yield is_known(frame["item_id"], items).alias("item_id is a row of items")
        yield is_first(frame, "board_id", "item_id", "timestamp").alias("row is new in its day")

    return Suite("boards", rules, facts)


def requests(bounds: Bounds) -> Suite:
    """Suite of `requests`: each shows something to somebody."""
    rules = (
        *(missing(c) for c in ("request_id", "user_id", "timestamp")),
        *times("timestamp", bounds),
        holds("item_ids.missing", "item_ids has an item"),
    )
    shown = "item_ids has an item"
    return Suite("requests", rules, lambda frame: [(frame["item_ids"].list.len().fill_null(0) > 0).alias(shown)])


def is_known(ids: pl.Series, known: pl.Series) -> pl.Series:
    """Whether each id is in `known`; null where there is no id. [rows] bool."""
    return ids.is_in(known.implode())


def is_first(frame: pl.DataFrame, *key: str) -> pl.Series:
    """False on rows that repeat `key` within their day: among equals the first by time and content. [rows] bool.

    Neither the order of the source nor what else is in the frame has a say, so that a day judged alone and a day
    judged among others keep the same row. Rows without an id are nobody's repetition.
    """
    group = [DAY, *key]
    ids = pl.all_horizontal(pl.col(c).is_not_null() for c in key if frame.schema[c] == pl.String)
    repeated = frame.with_row_index("row").filter(pl.struct(group).is_duplicated() & ids)
    order = dict.fromkeys(c for c in ("timestamp", *frame.columns) if c in frame and not frame.schema[c].is_nested())
    again = repeated.sort(*order, maintain_order=True).filter(~pl.struct(group).is_first_distinct())
    return ~pl.int_range(frame.height, dtype=pl.UInt32, eager=True).is_in(again["row"].implode())


def features_are_finite(frame: pl.DataFrame) -> pl.Series:
    """Whether no `features.*` of a row is infinite or not a number; null is neither. [rows] bool."""
    floats = [c for c, t in frame.schema.items() if c.startswith(FEATURE_PREFIX) and t.is_float()]
    finite = pl.all_horizontal(pl.lit(True), *(pl.col(c).is_finite().fill_null(True) for c in floats))
    return frame.with_columns(finite.alias("finite"))["finite"]
