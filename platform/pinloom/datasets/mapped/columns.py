"""Source columns as contract columns: expressions that give null where a value cannot be understood."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from components.contract import TIMESTAMP

MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
EARLIEST = int(datetime(1980, 1, 1, tzinfo=UTC).timestamp())
LATEST = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())
"""A number outside of these years is in another unit than declared."""


@dataclass(frozen=True)
class Column:
    """One contract column made of one source column.

    Attributes:
        name: of the result.
        field: of the mapping, for messages.
        source: column of the file.
        expected: what its values must be, in words.
        unit: of times.
        required: whether an absent value is a bad one too.
        remedy: when no value of the column is understood.
    """

    name: str
    field: str
    source: str
    expr: pl.Expr
    expected: str
    unit: str = ""
    required: bool = False
    remedy: str = "map another column, or clean this one"

    def bad(self, batch: pl.DataFrame, result: pl.Series) -> pl.Series:
        """Which source rows hold something that was not understood, or nothing where something is needed. [rows] bool.

        Args:
            batch: rows of the file.
            result: `expr` of them.
        """
        return result.is_null() & (batch[self.source].is_not_null() | self.required)

    def rule(self, value: object) -> str:
        """What the quarantine calls such a cell."""
        return f"{self.name.removeprefix('__')}.{'missing' if value is None else 'unreadable'}"

    def hint(self, value: object) -> str:
        """The remedy; of a time, the other unit in which the value would be one."""
        if not self.unit:
            return self.remedy
        for unit, factor in MICROSECONDS.items():
            try:
                seconds = float(str(value)) * factor / 1_000_000
            except ValueError:
                break
            if EARLIEST <= seconds < LATEST and unit != self.unit:
                return f"with unit '{unit}' it would be {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
        return "choose the unit (s, ms, us, iso) or another column"


def text(name: str, dtype: pl.DataType) -> pl.Expr:
    """Ids and categories as text. Floats that are whole (numbers that once met a null) lose their '.0'."""
    if dtype.is_float():
        whole = pl.col(name).cast(pl.Int64, strict=False)
        return pl.when(whole == pl.col(name)).then(whole.cast(pl.String)).otherwise(pl.col(name).cast(pl.String))
    return pl.col(name).cast(pl.String)


def sequence(name: str, wanted: pl.List) -> pl.Expr:
    """Lists of `wanted`; null where an element cannot be understood."""
    read = pl.col(name).cast(wanted, strict=False)
    known = pl.col(name).cast(pl.List(pl.String)).list.drop_nulls().list.len()
    return pl.when(read.list.drop_nulls().list.len() == known).then(read)


def number(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Float64, strict=False)


def word(name: str, dtype: pl.DataType, known: Collection[str]) -> pl.Expr:
    """Text that is one of the known words."""
    said = text(name, dtype)
    return pl.when(said.is_in(list(known))).then(said)


def flag(name: str, dtype: pl.DataType) -> pl.Expr:
    """0/1, true/false (also as text) as booleans."""
    if dtype == pl.Boolean:
        return pl.col(name)
    lowered = pl.col(name).cast(pl.String).str.to_lowercase().str.strip_chars().str.strip_suffix(".0")
    yes, no = lowered.is_in(["1", "true"]), lowered.is_in(["0", "false"])
    return pl.when(yes).then(True).when(no).then(False)


def moment(name: str, dtype: pl.DataType, unit: str) -> pl.Expr:
    """UTC microseconds; null for what is no time, or no time between 1980 and 2200 in this unit."""
    if unit != "iso":
        return _counted(name, MICROSECONDS[unit])
    if dtype == pl.String:
        return _iso(name)
    if dtype == pl.Date or (isinstance(dtype, pl.Datetime) and dtype.time_zone is None):
        return pl.col(name).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if isinstance(dtype, pl.Datetime):
        return pl.col(name).dt.convert_time_zone("UTC").cast(TIMESTAMP)
    return pl.lit(None, dtype=TIMESTAMP)


def _counted(name: str, factor: int) -> pl.Expr:
    whole = pl.col(name).cast(pl.Int64, strict=False)
    exact = pl.col(name).cast(pl.Float64, strict=False)
    plausible = exact.is_between(EARLIEST * (1_000_000 // factor), LATEST * (1_000_000 // factor), closed="left")
    micros = pl.when(whole == exact).then(whole * factor).otherwise((exact * factor).cast(pl.Int64, strict=False))
    return pl.when(plausible).then(micros).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _iso(name: str) -> pl.Expr:
    s = pl.col(name).str.strip_chars().str.replace(" ", "T", literal=True).str.replace("[Zz]$", "+00:00")
    s = pl.when(s.str.contains("T", literal=True)).then(s).otherwise(s + "T00:00:00")
    s = s.str.replace(r"T(\d\d:\d\d)($|[+-])", "T${1}:00${2}")
    s = pl.when(s.str.contains(r"T.*[+-]\d\d:?\d\d$")).then(s).otherwise(s + "+00:00")
    return s.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", strict=False, time_unit="us")
