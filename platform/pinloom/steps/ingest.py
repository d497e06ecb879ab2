"""`ingest`: a raw log becomes the contract's tables, by day. Memory is bounded by `FLUSH_ROWS` and one batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, timedelta

import polars as pl
from pydantic import Field
from tqdm import tqdm

from components.contract import ACTIONS
from components.errors import UserError
from pinloom.datasets.source import Source, Tables, open_source
from pinloom.steps import landed
from pinloom.steps.base import Params, Step, StepContext, World

PARTITIONED = ("actions", "boards", "requests", "unread")
FLUSH_ROWS = 1_000_000
NO_ACTIONS = pl.DataFrame(schema=ACTIONS)


class IngestParams(Params):
    """Days [start, stop), by default all that there is. The rest is filled in by `complete` and is part of the key.

    Attributes:
        users_sample: share of users ingested, by hash of the id (default: the setting).
        source: fingerprint of the raw files.
        landed: fingerprint of the actions that serving landed on these days.
    """

    start: date | None = None
    stop: date | None = None
    users_sample: float | None = Field(default=None, gt=0, le=1)
    source: str = ""
    landed: str = ""


def complete(params: IngestParams, world: World) -> IngestParams:
    """Parameters that depend on the world, fixed before the key is computed.

    Raises:
        UserError: the interval is empty, or neither the source nor serving has anything in it.
    """
    share = params.users_sample or world.settings.users_sample
    source = open_source(world.spec, share)
    first, end = source.interval()
    days = landed.days(world.lake)
    have = (min([first, *days]), max([end, *(d + timedelta(days=1) for d in days)]))
    start, stop = params.start or have[0], params.stop or have[1]
    if start >= stop:
        raise UserError(f"start {start} is not before stop {stop}", "give a half-open interval of days")
    if stop <= have[0] or start >= have[1]:
        raise UserError(
            f"'{world.spec.name}' has nothing in [{start}, {stop})",
            f"it covers [{have[0]}, {have[1]}): choose days of it",
        )
    return IngestParams(
        start=start,
        stop=stop,
        users_sample=share,
        source=source.fingerprint(),
        landed=landed.fingerprint(world.lake, start, stop),
    )


def run(ctx: StepContext) -> None:
    params: IngestParams = ctx.params
    assert params.start is not None
    assert params.stop is not None
    assert params.users_sample is not None
    source = open_source(ctx.spec, params.users_sample)
    for name in PARTITIONED:
        ctx.output(name)
    with tqdm(unit="row", unit_scale=True, mininterval=1, desc=f"ingest {ctx.spec.name}") as bar:
        for part, tables in enumerate(_gathered(_batches(ctx, source, params.start, params.stop))):
            _write(ctx, tables, part)
            bar.update(tables["actions"].height if "actions" in tables else 0)
    ctx.output("items").parquet("items.parquet", source.items())
    ctx.output("users").parquet("users.parquet", source.users())
    ctx.metrics |= {f"{name}_rows": ctx.output(name).output().rows for name in (*PARTITIONED, "items", "users")}


def _batches(ctx: StepContext, source: Source, start: date, stop: date) -> Iterator[Tables]:
    """The source, then what serving landed and the source lacks: an action that is posted and logged too is one.

    `landed_in_source` counts those left out. Of the landed rows only the identities are held.
    """
    share = ctx.params.users_sample
    posted = pl.concat([_identity(rows) for rows in landed.read(ctx.lake, start, stop, share)] or [_identity()])
    both = posted.clear()
    for tables in source.batches(start, stop):
        if posted.height and "actions" in tables:
            both = both.vstack(posted.join(_identity(tables["actions"]), on=posted.columns, how="semi"))
        yield tables
    ctx.metrics["landed_in_source"] = both.unique().height
    identity: list[str | pl.Expr] = ["event_id", pl.col("timestamp").dt.date()]
    for rows in landed.read(ctx.lake, start, stop, share):
        yield {"actions": rows.join(both, left_on=identity, right_on=both.columns, how="anti", maintain_order="left")}


def _identity(actions: pl.DataFrame = NO_ACTIONS) -> pl.DataFrame:
    """`event_id`, `day`."""
    return actions.select("event_id", day=pl.col("timestamp").dt.date())


def _gathered(batches: Iterable[Tables]) -> Iterator[Tables]:
    """Batches joined to about `FLUSH_ROWS` rows, so that a day has few files whatever the order of the source."""
    held: dict[str, list[pl.DataFrame]] = {}
    rows = 0
    for tables in batches:
        for name, frame in tables.items():
            held.setdefault(name, []).append(frame)
            rows += frame.height
        if rows >= FLUSH_ROWS:
            yield {name: pl.concat(frames) for name, frames in held.items()}
            held, rows = {}, 0
    if held:
        yield {name: pl.concat(frames) for name, frames in held.items()}


def _write(ctx: StepContext, tables: Tables, part: int) -> None:
    """Write each table by day. Rows without a time stand in partition ''."""
    for name, frame in tables.items():
        for (day,), rows in frame.group_by(pl.col("timestamp").dt.date().alias("day"), maintain_order=True):
            partition = str(day or "")
            ctx.output(name).parquet(f"{partition or 'undated'}/{part:05d}.parquet", rows, partition=partition)


STEP = Step(
    name="ingest",
    version=1,
    run=run,
    params=IngestParams,
    complete=complete,
    advances="landed",
    reads=("source", "contract"),
)
