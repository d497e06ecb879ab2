"""Actions that serving landed in the lake: `landed/realtime/day=YYYY-MM-DD/*.parquet`, contract columns.

`day` is the UTC day of the action's own timestamp, so that a late action joins the day that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import polars as pl

from components.errors import UserError
from pinloom.datasets.source import conform, in_sample
from pinloom.lake import Lake
from pinloom.lake.manifest import digest

RULE = "the source's row wins"
"""Which of two rows of one event counts. Hashed, so that days ingested by another rule are ingested anew; those
without landed actions keep their keys."""


def _files(lake: Lake) -> dict[date, list[str]]:
    root = lake.path("landed", "realtime")
    if not lake.fs.exists(root):
        return {}
    lake.fs.invalidate_cache()
    found: dict[date, list[str]] = {}
    for path in sorted(lake.fs.glob(f"{root}/day=*/*.parquet")):
        day = path.rsplit("/", 2)[-2].removeprefix("day=")
        found.setdefault(date.fromisoformat(day), []).append(path)
    return found


def days(lake: Lake) -> list[date]:
    return sorted(_files(lake))


def fingerprint(lake: Lake, start: date, stop: date) -> str:
    """Of `RULE` and the names and sizes of the files (each is immutable); '' when there are none."""
    files = [p for day, paths in _files(lake).items() if start <= day < stop for p in paths]
    return digest([RULE, *((p.rsplit("landed/", 1)[-1], lake.fs.size(p)) for p in sorted(files))]) if files else ""


def read(lake: Lake, start: date, stop: date, users_sample: float) -> Iterator[pl.DataFrame]:
    """The landed actions of each day, one row per `event_id`.

    Raises:
        UserError: a row lies in the folder of another day.
    """
    for day, paths in sorted(_files(lake).items()):
        if start <= day < stop:
            rows = pl.concat([_load(lake, path, day) for path in paths])
            rows = rows.unique("event_id", keep="first", maintain_order=True)
            yield rows.filter(in_sample(rows["user_id"], users_sample))


def _load(lake: Lake, path: str, day: date) -> pl.DataFrame:
    with lake.fs.open(path, "rb") as f:
        rows = conform(pl.read_parquet(f), "actions")
    strays = rows.filter(pl.col("timestamp").dt.date() != day)
    if strays.height:
        raise UserError(
            f"{path} holds {strays.height} rows of other days, e.g. event {strays['event_id'][0]} at "
            f"{strays['timestamp'][0]}",
            "land each action under the UTC day of its own timestamp",
        )
    return rows
