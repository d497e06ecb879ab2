"""The source behind `source.root` and `source.tables`: any log in Parquet or CSV."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from functools import cached_property

import polars as pl

from components.contract import midnight
from components.errors import UserError
from pinloom.datasets.mapped.cells import check
from pinloom.datasets.mapped.files import Files
from pinloom.datasets.mapped.table import FileTable
from pinloom.datasets.source import Tables, conform, empty, in_sample, infer_created_at
from pinloom.datasets.spec import DatasetSpec


class MappedLog:
    """Memory is bounded by `BATCH_ROWS` rows, by the items and by the distinct users, not by the log."""

    def __init__(self, spec: DatasetSpec, users_sample: float) -> None:
        self.spec = spec
        self.users_sample = users_sample
        self.files = Files(spec.source.root, spec.path)

    @cached_property
    def tables(self) -> dict[str, list[FileTable]]:
        """Contract table → its files; opening them checks every column that the mapping names.

        Raises:
            UserError: a mistake in the mapping.
        """
        return {name: [t for opened in self._opened(name) for t in opened] for name in self.spec.source.tables}

    def _opened(self, table: str) -> Iterator[list[FileTable]]:
        """The files of each mapping of a table."""
        vocabulary = [a.name for a in self.spec.contract.actions]
        mappings = self.spec.source.tables[table]
        for i, mapping in enumerate(mappings):
            field = f"source.tables.{table}" + (f".{i}" if len(mappings) > 1 else "")
            opened = [FileTable(table, file, vocabulary) for file in self.files.of(mapping, field)]
            check(opened)
            yield opened

    def fingerprint(self) -> str:
        return self.files.fingerprint([f.file for files in self.tables.values() for f in files])

    def interval(self) -> tuple[date, date]:
        time = pl.col("time")
        spans = pl.concat(
            [
                f.collect(f.file.scan().select(time=f.expr("timestamp")).select(first=time.min(), last=time.max()))
                for f in self.tables["actions"]
            ]
        )
        first, last = spans.select(pl.col("first").min(), pl.col("last").max()).row(0)
        if first is None or last is None:
            names = ", ".join(f.file.uri for f in self.tables["actions"])
            raise UserError(f"source.tables.actions: there are no rows in {names}", "check source.root and the files")
        return first.date(), last.date() + timedelta(days=1)

    def items(self) -> pl.DataFrame:
        """Mapped items, or all item ids of the log where no items are mapped."""
        if "items" in self.tables:
            items = pl.concat(list(self._whole("items")), how="diagonal")
        else:
            items = conform(self._first_seen.select("item_id"), "items")
        if items["created_at"].null_count() == 0:
            return items.with_columns(created_at_inferred=pl.lit(False))
        return infer_created_at(items, self._first_seen, self.spec.contract.splits.burn_in)

    @cached_property
    def _first_seen(self) -> pl.DataFrame:
        """`item_id`, `first_seen` over the whole log, sorted by item."""
        earliest = pl.col("first_seen").min()
        found = [
            f.collect(
                f.file.scan()
                .select(item_id=f.expr("item_id").cast(pl.String), first_seen=f.expr("timestamp"))
                .drop_nulls("item_id")
                .group_by("item_id")
                .agg(earliest)
            )
            for f in self.tables["actions"]
        ]
        return pl.concat(found).group_by("item_id").agg(earliest).sort("item_id")

    def users(self) -> pl.DataFrame:
        parts = list(self._whole("users"))
        return self._sampled(pl.concat(parts, how="diagonal")) if parts else empty("users")

    def _whole(self, table: str) -> Iterator[pl.DataFrame]:
        for f in self.tables.get(table, []):
            yield from (read[table] for read in f.read())

    def batches(self, start: date, stop: date) -> Iterator[Tables]:
        """The dated tables, and with every interval what cannot be read of the others."""
        for name in ("actions", "boards", "requests"):
            for f in self.tables.get(name, []):
                for tables in f.read(_within(f, start, stop)):
                    yield {table: self._sampled(rows) for table, rows in tables.items()}
        for name in ("items", "users"):
            for f in self.tables.get(name, []):
                yield from ({"unread": self._sampled(read["unread"])} for read in f.read() if "unread" in read)

    def _sampled(self, rows: pl.DataFrame) -> pl.DataFrame:
        if "user_id" not in rows.columns:
            return rows
        return rows.filter(in_sample(rows["user_id"], self.users_sample))


def _within(table: FileTable, start: date, stop: date) -> pl.Expr:
    """Rows of the interval, and those without a time: a time that cannot be read must be reported, not passed over."""
    time = table.expr("timestamp")
    return time.is_null() | time.is_between(midnight(start), midnight(stop), closed="left")
