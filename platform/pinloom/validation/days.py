"""Days of a landed manifest: what it covers, and its rows in groups of days."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import polars as pl
from tqdm import tqdm

from pinloom.lake import Lake, Manifest

DAY = "day"
"""Column naming the partition that a row landed in: a UTC day, or `UNDATED`."""

UNDATED = "undated"
"""Partition of rows that have no timestamp."""

DATED = ("actions", "boards", "requests")
"""Tables that lie by day."""

UNREAD = "unread"
"""Output of `ingest` with the source rows that could not be read (`pinloom.datasets.source.UNREAD`)."""

GROUP_ROWS = 500_000
"""Days are judged together up to so many rows: one judgement costs 0.1 s, however few the rows."""


def covered(landed: Manifest) -> set[str]:
    """Every day that the manifest speaks for: those with rows, and those of its interval that have none.

    And always for rows without a time, which come with every interval.
    """
    days = {UNDATED, *(p for name in DATED for p in landed.output(name).partitions() if p)}
    if landed.params.get("start") and landed.params.get("stop"):
        start, stop = (date.fromisoformat(landed.params[name]) for name in ("start", "stop"))
        days |= {str(start + timedelta(days=n)) for n in range((stop - start).days)}
    return days


def groups(lake: Lake, landed: Manifest, table: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """(name, rows with column `day`) of consecutive days of about `GROUP_ROWS` rows, at least one day."""
    output = landed.output(table)
    sizes = dict.fromkeys(output.partitions(), 0)
    for file in output.files:
        sizes[file.partition] += file.rows or 0
    parted: list[list[str]] = []
    filled = GROUP_ROWS
    for partition, rows in sizes.items():
        if filled + rows > GROUP_ROWS:
            parted.append([])
            filled = 0
        parted[-1].append(partition)
        filled += rows
    for names in tqdm(parted, desc=f"validate {table}", unit="group", disable=len(parted) < 2):
        frames = [pl.read_parquet(_files(lake, landed, table, n)).with_columns(day=pl.lit(n or UNDATED)) for n in names]
        yield f"{names[0] or UNDATED} to {names[-1] or UNDATED}", pl.concat(frames)


def _files(lake: Lake, landed: Manifest, table: str, partition: str) -> list[str]:
    return [str(lake.local_path(uri)) for uri in landed.output(table).partition(partition)]
