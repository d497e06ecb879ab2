"""Actions that serving landed in the lake: `landed/realtime/day=YYYY-MM-DD/*.parquet`, contract columns.

`day` is the UTC day of the action's own timestamp, so that a late action joins the day that it belongs to.

A post is a file. `tidy` merges those of a day into one, for good: a day may be ingested again at any time (its source
changed, the whole log is asked for), and what was posted is nowhere else. A merged file says which files it holds, so
that they may go later and the fingerprint of a day, a part of the keys of all that was made of it, stays.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import date, datetime

import polars as pl

from components.errors import UserError
from pinloom.datasets.source import conform, in_sample
from pinloom.lake import Lake
from pinloom.lake.gc import modified
from pinloom.lake.manifest import digest

RULE = "the source's row wins"
"""Which of two rows of one event counts. Hashed, so that days ingested by another rule are ingested anew; those
without landed actions keep their keys."""

MERGED = "0-"
"""Begins the names of merged files; those of posts are UUIDs."""

POST = "post"
"""Column of merged files: name and size of the post that a row came in. Of repeated events the row of the first post by
them counts, so that merging some posts of a day and not others changes nothing."""

HOLDS = "pinloom.holds"
"""Parquet metadata of a merged file: name and size of each file that it holds."""

Posts = set[tuple[str, int]]
"""Name below `landed/` and size of files: each is immutable."""


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
    """Of `RULE` and the names and sizes of the posts, merged or not; '' when there are none."""
    paths = [p for day, paths in _files(lake).items() if start <= day < stop for p in paths]
    posts = set().union(*(_posts(lake, p) for p in paths))
    return digest([RULE, *sorted(posts)]) if posts else ""


def _posts(lake: Lake, path: str) -> Posts:
    """The posts that a file stands for."""
    name = path.rsplit("landed/", 1)[-1]
    if not _is_merged(path):
        return {(name, int(lake.fs.size(path)))}
    with lake.fs.open(path, "rb") as f:
        held = json.loads(pl.read_parquet_metadata(f)[HOLDS])
    return {(name, size) for name, size in held}


def tidy(lake: Lake, before: datetime, *, dry_run: bool = False) -> dict[str, int]:
    """Merge the posts of each day that were written before a moment; remove those merged before it.

    In this order over two runs: whoever listed the posts still finds them, and a crash finds both. What `read` gives
    and the fingerprints stay the same.

    Returns:
        `landed_merged`: files written; `landed_removed`: posts that went, since a merged file holds them.
    """
    merged = removed = 0
    for day, paths in _files(lake).items():
        old = [p for p in paths if modified(lake.fs.info(p)) < before]
        held = set().union(*(_posts(lake, p) for p in paths if _is_merged(p)))
        safe = set().union(*(_posts(lake, p) for p in old if _is_merged(p)))
        posts = {p: _posts(lake, p) for p in old if not _is_merged(p)}
        gone = [p for p, post in posts.items() if post <= safe]
        fresh = [p for p, post in posts.items() if not post <= held]
        if not dry_run:
            for path in gone:
                lake.fs.rm_file(path)
            if len(fresh) > 1:
                _merge(lake, day, fresh)
        removed += len(gone)
        merged += len(fresh) > 1
    return {"landed_merged": merged, "landed_removed": removed}


def _is_merged(path: str) -> bool:
    return path.rsplit("/", 1)[-1].startswith(MERGED)


def _merge(lake: Lake, day: date, paths: list[str]) -> None:
    held = sorted(set().union(*(_posts(lake, p) for p in paths)))
    content = io.BytesIO()
    _unique(lake, paths, day).write_parquet(content, compression="zstd", metadata={HOLDS: json.dumps(held)})
    lake.create(lake.path("landed", "realtime", f"day={day}", f"{MERGED}{digest(held)}.parquet"), content.getvalue())


def read(lake: Lake, start: date, stop: date, users_sample: float) -> Iterator[pl.DataFrame]:
    """The landed actions of each day, one row per `event_id`.

    Raises:
        UserError: a row lies in the folder of another day.
    """
    for day, paths in sorted(_files(lake).items()):
        if start <= day < stop:
            rows = _unique(lake, paths, day).drop(POST)
            yield rows.filter(in_sample(rows["user_id"], users_sample))


def _unique(lake: Lake, paths: list[str], day: date) -> pl.DataFrame:
    """One row per `event_id`, with `POST`. Of a post that is there twice the merged rows count: they stay."""
    rows = pl.concat([_load(lake, path, day) for path in sorted(paths)])
    return rows.sort(POST, maintain_order=True).unique("event_id", keep="first", maintain_order=True)


def _load(lake: Lake, path: str, day: date) -> pl.DataFrame:
    content = lake.read_bytes(path)
    read = pl.read_parquet(content)
    post = read[POST] if _is_merged(path) else pl.lit(f"{path.rsplit('/', 1)[-1]} {len(content)}")
    rows = conform(read, "actions").with_columns(post.alias(POST))
    strays = rows.filter(pl.col("timestamp").dt.date() != day)
    if strays.height:
        raise UserError(
            f"{path} holds {strays.height} rows of other days, e.g. event {strays['event_id'][0]} at "
            f"{strays['timestamp'][0]}",
            "land each action under the UTC day of its own timestamp",
        )
    return rows
