"""Cells that cannot be understood. One among good ones sends its row to the quarantine, with its place in the source;
where a column has no other, the mapping is wrong, and the user is told before anything is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from components.errors import UserError
from pinloom.datasets.mapped.columns import Column
from pinloom.datasets.mapped.files import ROW, LogFile, readable
from pinloom.datasets.source import UNREAD

if TYPE_CHECKING:
    from pinloom.datasets.mapped.table import FileTable

HEAD = 10_000
"""Rows of a table looked at before any is read: more than a damaged stretch, few enough to cost nothing."""


def separate(
    table: str, file: LogFile, columns: Sequence[Column], batch: pl.DataFrame, rows: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows whose every cell is good, and the others as `UNREAD`.

    Args:
        batch: rows of the file; rows: the same as contract columns, row by row.
    """
    bad = [(c, found) for c in columns if (found := c.bad(batch, rows[c.name])).any()]
    if not bad:
        return rows, pl.DataFrame(schema=UNREAD)
    some = pl.any_horizontal([found for _, found in bad])
    at = pl.select(some.arg_true()).to_series()
    kept = rows[at].with_columns(*(pl.lit(None).alias(c) for c in ("user_id", "timestamp") if c not in rows.columns))
    said = pl.DataFrame(
        [_described(row, [c for c, found in bad if found[i]]) for i, row in zip(at, batch[at].to_dicts(), strict=True)],
        schema={c: t for c, t in UNREAD.items() if c not in ("table", "file", "user_id", "timestamp")},
    )
    unread = said.with_columns(kept["user_id"], kept["timestamp"], table=pl.lit(table), file=pl.lit(file.name))
    return rows.filter(~some), unread.select(pl.col(c).cast(t) for c, t in UNREAD.items())


def _described(row: dict[str, Any], bad: list[Column]) -> dict[str, Any]:
    number = row.pop(ROW) + 1
    cells = [
        {
            "rule": c.rule(row[c.source]),
            "column": c.source,
            "value": None if row[c.source] is None else str(row[c.source]),
            "expected": c.expected,
        }
        for c in bad
    ]
    content = json.dumps(row, default=str, ensure_ascii=False)
    return {"row": number, "rules": sorted(c["rule"] for c in cells), "cells": cells, "content": content}


def check(tables: Sequence[FileTable]) -> None:
    """See whether the files of one mapping hold what it says.

    Raises:
        UserError: of a column, not one value among the first `HEAD` rows is understood. Names the first that was not,
            with its row (from 1), what was expected and the columns that there are.
    """
    understood: set[str] = set()
    first: dict[str, tuple[FileTable, Column, int, object]] = {}
    for table, batch in _head(tables):
        rows = table.convert(batch)
        for column in table.columns:
            if rows[column.name].is_not_null().any():
                understood.add(column.name)
            bad = batch.filter(column.bad(batch, rows[column.name])).head(1)
            for row in bad.iter_rows(named=True):
                first.setdefault(column.name, (table, column, row[ROW] + 1, row[column.source]))
    for name, found in first.items():
        if name not in understood:
            raise _mistake(*found)


def _head(tables: Sequence[FileTable]) -> Iterator[tuple[FileTable, pl.DataFrame]]:
    left = HEAD
    for table in tables:
        with readable(table.file):
            batch = table.scan().head(left).collect()
        yield table, batch
        left -= batch.height
        if not left:
            return


def _mistake(table: FileTable, column: Column, row: int, value: object) -> UserError:
    file = table.file
    return UserError(
        f"{file.field}.{column.field}: {file.uri}, row {row}: column '{column.source}' holds {value!r}, "
        f"expected: {column.expected} (no row of the first {HEAD:,} has one)",
        f"{column.hint(value)}; columns that there are: {', '.join(file.schema)}",
    )
