"""One file of a mapping as rows of a contract table, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from components.contract import FEATURE_PREFIX, TABLES
from components.errors import UserError
from pinloom.datasets.mapped.cells import separate
from pinloom.datasets.mapped.columns import Column, flag, moment, number, sequence, text, word
from pinloom.datasets.mapped.events import FEEDBACK, RATING, expand_actions, words
from pinloom.datasets.mapped.files import ROW, LogFile, readable
from pinloom.datasets.mapping import REQUIRED
from pinloom.datasets.source import Tables, conform

BATCH_ROWS = 500_000


class FileTable:
    """Reads `file` as contract table `table`.

    Raises:
        UserError: a column that the mapping names is not in the file.
    """

    def __init__(self, table: str, file: LogFile, vocabulary: list[str]) -> None:
        self.table = table
        self.file = file
        self.vocabulary = vocabulary
        self.columns = [*self._contract(), *self._times(), *self._features(), *self._signals()]

    def expr(self, name: str) -> pl.Expr:
        """A contract column as an expression on the raw file."""
        constant = self.file.mapping.constants.get(name)
        return next((c.expr for c in self.columns if c.name == name), pl.lit(constant))

    def scan(self) -> pl.LazyFrame:
        """The raw columns that the mapping names, with the rows' numbers."""
        return self.file.scan().select(ROW, *dict.fromkeys(c.source for c in self.columns))

    def convert(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Rows of `scan` with the contract's columns: null where a value is not understood."""
        rows = batch.select(ROW, *(c.expr.alias(c.name) for c in self.columns))
        return rows.with_columns(pl.lit(v).alias(c) for c, v in self.file.mapping.constants.items())

    def read(self, where: pl.Expr | None = None) -> Iterator[Tables]:
        """Contract rows of the raw rows that satisfy `where`, and as `unread` those with a bad cell."""
        rows = self.scan() if where is None else self.scan().filter(where)
        for batch in self._batches(rows):
            if batch.height:
                good, unread = separate(self.table, self.file, self.columns, batch, self.convert(batch))
                yield {self.table: self._finished(good)} | ({"unread": unread} if unread.height else {})

    def collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """What is made of the file's rows.

        Raises:
            UserError: the file is damaged.
        """
        with readable(self.file):
            return rows.collect(engine="streaming")

    def _batches(self, rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        with readable(self.file):
            yield from rows.collect_batches(chunk_size=BATCH_ROWS, lazy=True)

    def _finished(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self.table == "actions":
            return expand_actions(rows, self.file, self.vocabulary)
        return conform(rows, self.table)

    def _contract(self) -> Iterator[Column]:
        for name, source in self.file.mapping.columns.items():
            if name == "action":
                yield self._action(source)
            else:
                column = self._column(name, f"columns.{name}", source, TABLES[self.table][name])
                yield replace(column, required=name == "event_id" or name in REQUIRED[self.table])

    def _action(self, source: str) -> Column:
        known = words(self.file, self.vocabulary)
        expected = f"one of: {', '.join(known)}"
        expr = word(source, self._require_plain(source, "columns.action", expected), known)
        remedy = "declare it in contract.actions, or map it under action_values (null leaves such rows out)"
        return Column("action", "columns.action", source, expr, expected, required=True, remedy=remedy)

    def _times(self) -> Iterator[Column]:
        for name, spec in self.file.mapping.time.items():
            expected = f"a time in unit '{spec.unit}'"
            dtype = self._require_plain(spec.column, f"time.{name}", expected)
            expr = moment(spec.column, dtype, spec.unit)
            needed = name in REQUIRED[self.table]
            yield Column(name, f"time.{name}", spec.column, expr, expected, unit=spec.unit, required=needed)

    def _features(self) -> Iterator[Column]:
        mapping = self.file.mapping
        kinds = {
            "numeric_features": (mapping.numeric_features, pl.Float64()),
            "categorical_features": (mapping.categorical_features, pl.String()),
            "vector_features": (mapping.vector_features, pl.List(pl.Float64)),
        }
        for kind, (sources, dtype) in kinds.items():
            for name, source in sources.items():
                yield self._column(FEATURE_PREFIX + name, f"{kind}.{name}", source, dtype)

    def _signals(self) -> Iterator[Column]:
        for action, source in self.file.mapping.feedback.items():
            yield self._column(FEEDBACK + action, f"feedback.{action}", source, pl.Boolean())
        for i, rule in enumerate(self.file.mapping.ratings):
            yield self._column(f"{RATING}{i}", f"ratings.{i}.column", rule.column, pl.Float64())

    def _column(self, name: str, field: str, source: str, wanted: pl.DataType) -> Column:
        """`source` brought to dtype `wanted`."""
        if wanted == pl.Float64:
            self._require_plain(source, field, "numbers")
            return Column(name, field, source, number(source), "a number")
        if wanted == pl.Boolean:
            return Column(name, field, source, flag(source, self._require_plain(source, field, "0 or 1")), "0 or 1")
        if isinstance(wanted, pl.List):
            self._require_list(source, field)
            expected = "a list of numbers" if wanted.inner == pl.Float64 else "a list"
            return Column(name, field, source, sequence(source, wanted), expected)
        dtype = self._require_plain(source, field, f"the values of {name}")
        return Column(name, field, source, text(source, dtype), "text or a number")

    def _require_list(self, source: str, field: str) -> None:
        dtype = self.file.require(source, field, "lists")
        if not isinstance(dtype, pl.List | pl.Array) or dtype.inner.is_nested():
            raise self._wrong_kind(source, field, dtype, "lists", "lists need Parquet")

    def _require_plain(self, source: str, field: str, expected: str) -> pl.DataType:
        dtype = self.file.require(source, field, expected)
        if dtype.is_nested():
            raise self._wrong_kind(source, field, dtype, expected, "map a column of single values")
        return dtype

    def _wrong_kind(self, source: str, field: str, dtype: pl.DataType, expected: str, remedy: str) -> UserError:
        return UserError(
            f"{self.file.field}.{field}: column '{source}' of {self.file.uri} holds {dtype}, expected: {expected}",
            f"{remedy}; columns that there are: {', '.join(self.file.schema)}",
        )
