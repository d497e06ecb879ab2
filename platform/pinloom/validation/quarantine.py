"""Rows that fail go to the quarantine with the rules that each failed: rows in = rows published + rows quarantined."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from components.contract import FEATURE_PREFIX
from pinloom.lake import OutputWriter
from pinloom.validation.days import DAY
from pinloom.validation.judge import Judge, Rows
from pinloom.validation.layout import write_days
from pinloom.validation.rules import Suite


@dataclass
class Tally:
    """What became of one table's rows.

    Attributes:
        rules: rule → rows that failed it; a row may fail several.
        examples: rule → one such row, as JSON.
    """

    rows: int = 0
    quarantined: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        return self.quarantined / self.rows if self.rows else 0.0

    def add(self, frame: pl.DataFrame, bad: pl.DataFrame, failed: dict[str, Rows]) -> None:
        self.rows += frame.height
        self.quarantined += bad.height
        for rule, rows in failed.items():
            self.rules[rule] = self.rules.get(rule, 0) + len(rows)
            self.examples.setdefault(rule, _row_as_json(frame, int(rows[0])))


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


def _row_as_json(frame: pl.DataFrame, row: int) -> str:
    values = frame.row(row, named=True)
    short = {k: v for k, v in values.items() if v is not None and k != DAY and not k.startswith(FEATURE_PREFIX)}
    return json.dumps(short, default=str, ensure_ascii=False)
