"""The gate: every row judged, bad rows quarantined, the run stopped when a table as a whole is not believable.

Days are judged in groups, so that memory is bounded by a group (or one large day), whatever the size of the log.
Every row-level rule looks at its own day (and at the items) alone: days judged apart and together give the same.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import polars as pl

from components.contract import TABLES
from components.errors import UserError
from pinloom.lake import Manifest
from pinloom.steps.base import StepContext
from pinloom.validation import rules
from pinloom.validation.days import DAY, UNDATED, UNREAD, covered, groups
from pinloom.validation.drift import Days
from pinloom.validation.judge import Judge
from pinloom.validation.layout import with_bucket, write_actions, write_days
from pinloom.validation.quarantine import Tally, keep_unread, separate
from pinloom.validation.report import write_report
from pinloom.validation.rules import Bounds
from pinloom.validation.verdict import Problem, judge_days, judge_quarantine, judge_schema

log = logging.getLogger("pinloom")

DOCS = "data_docs"
REJECTED = "validate-rejected"
"""Step name and pointer of the manifests that keep report and quarantine of a run that was stopped."""


def validate(ctx: StepContext) -> None:
    """Publish what passes of the input `ingest`.

    Raises:
        UserError: a table-level rule failed. Report and quarantine are in the lake even so.
    """
    for name in (*TABLES, "quarantine", "report"):
        ctx.output(name)
    judge = Judge(ctx.now, ctx.scratch / DOCS)
    landed = ctx.input("ingest")
    days = Days(ctx.lake, ctx.lake.latest("actions"))
    tallies = {name: Tally() for name in TABLES}
    problems = judge_schema(judge, ctx.lake, landed)
    compared = days.compare(())
    if not problems:
        _judge_rows(ctx, judge, landed, days, tallies)
        compared = days.compare(covered(landed))
        limits = ctx.spec.validation
        problems = [*judge_quarantine(judge, tallies, limits), *judge_days(judge, compared, limits)]
    ctx.metrics.update(_metrics(tallies))
    judge.write_docs()
    write_report(
        ctx.scratch / DOCS,
        title=f"{ctx.spec.name}, {_interval(landed)}",
        problems=problems,
        tallies=tallies,
        days=compared,
        facts=_facts(ctx, landed, tallies),
    )
    ctx.output("report").upload(ctx.scratch / DOCS)
    if problems:
        _stop(ctx, problems)
    _warn(tallies)


def _interval(landed: Manifest) -> str:
    days = sorted(covered(landed) - {UNDATED})
    return f"{days[0]} to {days[-1]}" if days else "no days"


def _facts(ctx: StepContext, landed: Manifest, tallies: dict[str, Tally]) -> dict[str, str]:
    return {
        "days": f"{len(landed.output('actions').partitions()):,}",
        "actions in": f"{tallies['actions'].rows:,}",
        "of them quarantined": f"{tallies['actions'].quarantined:,}",
        "landed at": f"{landed.created_at:%Y-%m-%d %H:%M} UTC",
        "validated at": f"{ctx.now:%Y-%m-%d %H:%M} UTC",
    }


def _judge_rows(ctx: StepContext, judge: Judge, landed: Manifest, days: Days, tallies: dict[str, Tally]) -> None:
    bounds = Bounds.of(ctx.spec, landed.created_at)

    def passing(suite: rules.Suite, frame: pl.DataFrame, batch: str) -> pl.DataFrame:
        return separate(judge, suite, frame, batch=batch, tally=tallies[suite.table], output=ctx.output("quarantine"))

    items = _whole(ctx, landed, "items", partial(passing, rules.items(bounds)))
    _whole(ctx, landed, "users", partial(passing, rules.users()))
    known = items["item_id"]
    actions = rules.actions(bounds, known)
    for batch, frame in groups(ctx.lake, landed, "actions"):
        good = passing(actions, frame, batch)
        days.add(good)
        write_actions(good, ctx.spec.contract, ctx.output("actions"))
    for suite in (rules.boards(bounds, known), rules.requests(bounds)):
        for batch, frame in groups(ctx.lake, landed, suite.table):
            write_days(with_bucket(passing(suite, frame, batch), ctx.spec.contract), ctx.output(suite.table))
    if UNREAD in landed.outputs:
        for _, frame in groups(ctx.lake, landed, UNREAD):
            keep_unread(frame, tallies, ctx.output("quarantine"))


def _whole(ctx: StepContext, landed: Manifest, table: str, passing: Any) -> pl.DataFrame:
    """A table without days: `items` or `users`, in the order of its ids. Its quarantine's partition is its name."""
    files = ctx.lake.local_paths(landed.output(table))
    frame = pl.read_parquet(files) if files else pl.DataFrame(schema=TABLES[table])
    good: pl.DataFrame = passing(frame.with_columns(pl.lit(table).alias(DAY)), table).drop(DAY).sort(frame.columns[0])
    ctx.output(table).parquet(f"{table}.parquet", good)
    return good


def _metrics(tallies: dict[str, Tally]) -> dict[str, Any]:
    return {
        "rows": {name: t.rows for name, t in tallies.items()},
        "quarantined": {name: t.quarantined for name, t in tallies.items()},
        "rules": {f"{name}.{rule}": n for name, t in tallies.items() for rule, n in sorted(t.rules.items())},
    }


def _warn(tallies: dict[str, Tally]) -> None:
    """Rows that few enough failed are published without: the user is told which and why."""
    for table, tally in tallies.items():
        if tally.quarantined:
            log.warning("validate: %s", "\n".join(tally.says(table)))


def _stop(ctx: StepContext, problems: list[Problem]) -> None:
    """Keep report and quarantine under a manifest of their own, so that nothing takes the run for done; then raise."""
    kept = {name: ctx.output(name).output() for name in ("quarantine", "report")}
    rejected = ctx.lake.publish(
        Manifest(
            step=REJECTED,
            version=1,
            key=f"{ctx.key}-{ctx.attempt}",
            created_at=ctx.now,
            inputs={name: {"uri": m.uri, "sha256": m.content_hash()} for name, m in ctx.inputs.items()},
            outputs=kept,
            metrics=ctx.metrics | {"problems": [f"{p.rule}: {p.says}" for p in problems]},
        )
    )
    ctx.lake.advance(REJECTED, lambda _: rejected)
    says = "\n".join(f"{p.rule}: {p.says}" for p in problems)
    raise UserError(
        f"validation stopped, nothing was published\n{says}\n"
        f"report: {rejected.file('report', 'index.html')}\nquarantine: manifest {rejected.uri}",
        f"mend the source or its mapping, or the thresholds under 'validation' in {ctx.spec.path}",
    )
