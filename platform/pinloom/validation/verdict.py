"""Table-level rules: are the types right, is the quarantine small, do the days look like the days before?"""

from __future__ import annotations

from dataclasses import dataclass

import great_expectations.expectations as gxe
import polars as pl

from components.contract import TABLES
from pinloom.datasets.spec import ValidationSpec
from pinloom.lake import Lake, Manifest
from pinloom.validation.days import DAY
from pinloom.validation.judge import Judge
from pinloom.validation.quarantine import Tally
from pinloom.validation.rules import Rule

BATCH = "all days"


@dataclass(frozen=True)
class Problem:
    """A table-level rule that failed: why the run stops."""

    rule: str
    says: str


def judge_schema(judge: Judge, lake: Lake, landed: Manifest) -> list[Problem]:
    """Columns and types of every landed file against the contract."""
    equal = gxe.ExpectColumnPairValuesToBeEqual(column_A="type", column_B="expected")
    rows = [
        {"table": table, "column": column, "type": str(schema.get(column, "missing")), "expected": str(expected)}
        for table, columns in TABLES.items()
        for schema in _schemas(lake, landed, table)
        for column, expected in columns.items()
    ]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(("table", "column", "type", "expected"), pl.String))
    failed = judge.failures("schema", BATCH, frame, [Rule("column.type", equal)])
    wrong = frame[failed.get("column.type", [])].unique(maintain_order=True)
    return [
        Problem("column.type", f"{r['table']}.{r['column']} has type {r['type']}, expected {r['expected']}")
        for r in wrong.iter_rows(named=True)
    ]


def _schemas(lake: Lake, landed: Manifest, table: str) -> list[pl.Schema]:
    """The distinct schemas of a table's files."""
    seen = {str(s): s for s in (pl.read_parquet_schema(p) for p in lake.local_paths(landed.output(table)))}
    return [pl.Schema(s) for s in seen.values()]


def judge_quarantine(judge: Judge, tallies: dict[str, Tally], limits: ValidationSpec) -> list[Problem]:
    """The share of rows in quarantine, table by table."""
    small = gxe.ExpectColumnValuesToBeBetween(column="quarantined_share", max_value=limits.max_quarantined)
    shares = [{"table": name, "quarantined_share": tally.share} for name, tally in tallies.items()]
    frame = pl.DataFrame(shares)
    rule = Rule("quarantined_share.above_max", small)
    failed = judge.failures("tables", BATCH, frame, [rule])
    return [_overfull(frame["table"][int(i)], tallies, limits) for i in failed.get(rule.name, [])]


def _overfull(table: str, tallies: dict[str, Tally], limits: ValidationSpec) -> Problem:
    first, *by_rule = tallies[table].says(table)
    first += f", at most {limits.max_quarantined:.1%} may (validation.max_quarantined)"
    return Problem("quarantined_share.above_max", "\n".join([first, *by_rule]))


def judge_days(judge: Judge, days: pl.DataFrame, limits: ValidationSpec) -> list[Problem]:
    """Volume and action mix of each day (`drift.Days.compare`) against the published day that it is held against."""
    limited = {"volume_factor": limits.max_volume_change, "mix_change": limits.max_mix_change}
    rules = [
        Rule(f"{column}.above_max", gxe.ExpectColumnValuesToBeBetween(column=column, max_value=limit))
        for column, limit in limited.items()
        if limit is not None
    ]
    if not rules or days.is_empty():
        return []
    failed = judge.failures("days", BATCH, days, rules)
    return [_drifted(rule.name, days[failed[rule.name]], limited) for rule in rules if rule.name in failed]


def _drifted(rule: str, days: pl.DataFrame, limited: dict[str, float | None]) -> Problem:
    column = rule.partition(".")[0]
    field = {"volume_factor": "max_volume_change", "mix_change": "max_mix_change"}[column]
    worst = days.sort(column, descending=True).row(0, named=True)
    return Problem(
        rule,
        f"actions: {days.height} day(s) differ from the day before by more than {field} = {limited[column]:g}, "
        f"e.g. {worst[DAY]}: {worst['rows']:,} rows, {column} {worst[column]:.2f} against {worst['against']}",
    )
