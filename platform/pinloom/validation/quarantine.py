"""Rows that fail go to the quarantine with the rules that each failed: rows in = rows published + rows quarantined."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from components.contract import FEATURE_PREFIX
from pinloom.lake import OutputWriter
from pinloom.validation.days import DATED, DAY
from pinloom.validation.judge import Judge, Rows
from pinloom.validation.layout import write_days
from pinloom.validation.rules import Suite


@dataclass
class Tally:
    """What became of one table's rows.

    Attributes:
        undated: source rows without a time that could be read. They are of no day and come with every interval: they
            are in `rows` and `quarantined`, but say nothing about the share.
        rules: rule → rows that failed it; a row may fail several.
        examples: rule → one such row, as JSON.
    """

    rows: int = 0
    quarantined: int = 0
    undated: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        judged = self.rows - self.undated
        return (self.quarantined - self.undated) / judged if judged else 0.0

    def add(self, frame: pl.DataFrame, bad: pl.DataFrame, failed: dict[str, Rows]) -> None:
        self.rows += frame.height
        self.quarantined += bad.height
        for rule, rows in failed.items():
            self.rules[rule] = self.rules.get(rule, 0) + len(rows)
            self.examples.setdefault(rule, _row_as_json(frame, int(rows[0])))

    def add_unread(self, rows: pl.DataFrame) -> None:
        """Count source rows that were not read (`pinloom.datasets.source.UNREAD`)."""
        self.rows += rows.height
        self.quarantined += rows.height
        if str(rows["table"][0]) in DATED:
            self.undated += rows["timestamp"].null_count()
        cells = rows.select("file", "row", "cells").explode("cells").unnest("cells")
        for (rule,), failed in cells.group_by("rule", maintain_order=True):
            self.rules[str(rule)] = self.rules.get(str(rule), 0) + failed.height
            self.examples.setdefault(str(rule), _row_as_json(failed.drop("rule"), 0))

    @property
    def _aside(self) -> str:
        return f" without the {self.undated:,} that have no time" if self.undated else ""

    def says(self, table: str) -> list[str]:
        """How many rows failed, then each rule, the most frequent first, with an example."""
        by_count = sorted(self.rules.items(), key=lambda kv: -kv[1])
        return [
            f"{table}: {self.quarantined:,} of {self.rows:,} rows ({self.share:.1%}{self._aside}) fail row-level rules",
            *(f"  {rule}: {count:,} rows, e.g. {self.examples[rule]}" for rule, count in by_count),
        ]


def separate(
    judge: Judge, suite: Suite, frame: pl.DataFrame, *, batch: str, tally: Tally, output: OutputWriter
) -> pl.DataFrame:
    """Judge `frame` (with column `day`), write what fails to `output` and return what passes, in order."""
    failed = {} if frame.is_empty() else judge.failures(suite.table, batch, suite.look(frame), suite.rules)
    numbered = frame.with_row_index("row")
    empty = pl.DataFrame(schema={"row": pl.UInt32, "rules": pl.String})
    pairs = (
        pl.DataFrame({"row": rows.astype(np.uint32), "rules": [rule] * len(rows)}) for rule, rows in failed.items()
    )
    reasons = pl.concat([empty, *pairs]).group_by("row").agg(pl.col("rules").sort())
    bad = numbered.join(reasons, on="row", how="inner", maintain_order="left").drop("row")
    tally.add(frame, bad, failed)
    write_days(bad, output, prefix=f"{suite.table}/")
    return numbered.join(reasons, on="row", how="anti", maintain_order="left").drop("row")


def keep_unread(frame: pl.DataFrame, tallies: dict[str, Tally], output: OutputWriter) -> None:
    """Put source rows that could not be read into the quarantine as they are; each counts as a row of its table.

    Args:
        frame: `pinloom.datasets.source.UNREAD`, with column `day`.
    """
    for (table,), rows in frame.group_by("table", maintain_order=True):
        tallies[str(table)].add_unread(rows)
    write_days(frame, output, prefix="unread/")


def _row_as_json(frame: pl.DataFrame, row: int) -> str:
    values = frame.row(row, named=True)
    short = {k: v for k, v in values.items() if v is not None and k != DAY and not k.startswith(FEATURE_PREFIX)}
    return json.dumps(short, default=str, ensure_ascii=False)
