"""A source: what a data set's reader must offer, and helpers that bring frames to the contract."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import date
from typing import Protocol

import polars as pl
import xxhash

from components.contract import FEATURE_PREFIX, TABLES, TIMESTAMP
from components.errors import UserError
from pinloom.datasets.spec import DatasetSpec

Tables = dict[str, pl.DataFrame]
"""Contract table name ('actions', 'boards', 'requests') → rows; 'unread' → rows as `UNREAD`."""

UNREAD: dict[str, pl.DataType] = {
    "table": pl.String(),
    "file": pl.String(),
    "row": pl.Int64(),
    "user_id": pl.String(),
    "timestamp": TIMESTAMP,
    "rules": pl.List(pl.String()),
    "cells": pl.List(pl.Struct(dict.fromkeys(("rule", "column", "value", "expected"), pl.String))),
    "content": pl.String(),
}
"""Source rows with a cell that cannot be understood, on their way to the quarantine.

`table`: the contract's that they would have entered; `file`, `row`: place in the source, rows from 1; `user_id`,
`timestamp`: as far as they are known; `rules`: what the cells fail; `cells`: column, value and what was expected of
each; `content`: the mapped columns of the row, as JSON.
"""

MAPPED = "pinloom.datasets.mapped.log:MappedLog"


class Source(Protocol):
    """A raw log that speaks the contract. Made by `Reader(spec, users_sample)`."""

    def fingerprint(self) -> str:
        """Changes whenever the raw files change: part of the key of `ingest`."""

    def interval(self) -> tuple[date, date]:
        """Half-open UTC days that the source covers."""

    def items(self) -> pl.DataFrame:
        """Contract table `items`, whole. The same whatever interval is ingested."""

    def users(self) -> pl.DataFrame:
        """Contract table `users`, whole."""

    def batches(self, start: date, stop: date) -> Iterator[Tables]:
        """Rows of [start, stop) in frames that fit in memory, in any order.

        Rows without a time belong to no day: they come with every interval.
        """


def open_source(spec: DatasetSpec, users_sample: float) -> Source:
    """The source that the data set declares: its reader, or its mapped files.

    Raises:
        UserError: the reader cannot be imported.
    """
    reader = spec.source.reader or MAPPED
    module, _, name = reader.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise UserError(f"{spec.path}: source.reader '{reader}': {e}", "write it as 'module:Class'") from e
    source: Source = cls(spec, users_sample)
    return source


def conform(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """`frame` with exactly the contract's columns and dtypes (missing ones null), then its `features.*`."""
    columns = TABLES[table]
    features = [c for c in frame.columns if c.startswith(FEATURE_PREFIX)]
    return frame.select(
        *((pl.col(c) if c in frame.columns else pl.lit(None)).cast(t).alias(c) for c, t in columns.items()),
        *features,
    )


def empty(table: str) -> pl.DataFrame:
    return pl.DataFrame(schema=TABLES[table])


def in_sample(user_ids: pl.Series, share: float) -> pl.Series:
    """Whether each user belongs to the sample of `share` of all users, hashed once per distinct user.

    Returns [rows] bool. Rows without a user are kept: it is the gate that counts them. The seed differs from that of
    `user_bucket`, so that a sample fills all buckets alike.
    """
    if share >= 1:
        return user_ids.is_null() | True
    distinct = user_ids.drop_nulls().unique()
    chosen = [u for u in distinct if xxhash.xxh64_intdigest(str(u).encode(), seed=1) < share * 2**64]
    return user_ids.is_in(pl.Series(chosen, dtype=user_ids.dtype).implode()).fill_null(True)


def infer_created_at(items: pl.DataFrame, first_seen: pl.DataFrame, burn_in: date) -> pl.DataFrame:
    """Fill a missing `created_at` with the first appearance, if that lies after the burn-in, and mark it inferred.

    An item that was there during the burn-in keeps null: it existed before the log, its age is unknown. The same
    holds for an item that never appears. Nothing depends on the interval ingested, only on the source.

    Args:
        items: contract table `items`.
        first_seen: `item_id`, `first_seen` (UTC, microseconds), one row per item.
        burn_in: `contract.splits.burn_in`.
    """
    seen_later = pl.col("first_seen") >= pl.lit(burn_in).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    inferred = pl.col("created_at").is_null() & seen_later.fill_null(False)
    return (
        items.join(first_seen, on="item_id", how="left", maintain_order="left")
        .with_columns(
            created_at=pl.when(inferred).then("first_seen").otherwise("created_at"),
            created_at_inferred=inferred,
        )
        .drop("first_seen")
    )
