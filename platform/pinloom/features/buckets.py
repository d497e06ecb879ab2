"""Work by user bucket: each task reads one bucket of the log, or a few small ones, so memory is bounded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import polars as pl
import pyarrow.dataset as ds

from pinloom.lake import Lake
from pinloom.lake.manifest import Output
from pinloom.ray_cluster import connect
from pinloom.settings import Settings

RAY_ROWS = 20_000_000
"""Rows of a log from which on a local Ray is worth its start-up; inside a Ray job a tenth suffices."""

GROUP_ROWS = 1_000_000
"""Rows of a log read at once: small buckets together, since to open a year of files costs more than to read them."""

Shared = TypeVar("Shared")
Result = TypeVar("Result")


def groups_of(buckets: int, table: Output) -> tuple[range, ...]:
    """Neighbouring buckets to be read together: about `GROUP_ROWS` rows, or one bucket; so also if nobody counted."""
    counted = all(f.rows is not None for f in table.files)
    size = max(1, min(buckets, GROUP_ROWS * buckets // max(table.rows, 1))) if counted else 1
    return tuple(range(first, min(first + size, buckets)) for first in range(0, buckets, size))


def read_bucket(lake: Lake, table: Output, bucket: int, columns: list[str], before: datetime) -> pl.DataFrame:
    """Rows of one user bucket with `timestamp` < `before`, in the order of the days and then as stored."""
    return read_buckets(lake, table, range(bucket, bucket + 1), columns, before)


def read_buckets(
    lake: Lake,
    table: Output,
    group: range,
    columns: list[str],
    before: datetime,
    actions: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Rows of neighbouring user buckets with `timestamp` < `before`, in the order of the days and then as stored.

    Files are sorted by bucket with row groups cut at bucket borders, so that only the buckets' groups are read.

    Args:
        actions: only rows with one of these words.
    """
    wanted = [pl.col("bucket").is_between(group.start, group.stop - 1), pl.col("timestamp") < before]
    if actions is not None:
        wanted.append(pl.col("action").is_in(actions))
    paths = [str(lake.fs._strip_protocol(uri)) for uri in table.uris]
    if lake.is_local:
        rows = pl.scan_parquet(paths)
    else:
        rows = pl.scan_pyarrow_dataset(ds.dataset(paths, format="parquet", filesystem=lake.fs))
    return rows.filter(wanted).select(columns).collect()


def by_bucket(rows: pl.DataFrame, group: range) -> Iterator[tuple[int, pl.DataFrame]]:
    """Each bucket of `group` with its rows, in their order and without the column `bucket`; there may be none."""
    if len(group) == 1:
        yield group.start, rows.drop("bucket")
        return
    parts = rows.partition_by("bucket", maintain_order=True, include_key=False, as_dict=True)
    for bucket in group:
        yield bucket, parts.get((bucket,), rows.clear().drop("bucket"))


def map_buckets(
    work: Callable[[Shared, int], Result], shared: Shared, buckets: int, rows: int, settings: Settings
) -> Iterator[Result]:
    """`work(shared, bucket)` for every bucket, in order: Ray tasks for large logs, else in this process.

    Args:
        work: a module-level function.
        shared: what all tasks read; put into Ray's object store once.
        rows: size of the log.
        settings: where Ray is, for logs that are worth it.
    """
    if rows < (RAY_ROWS // 10 if "RAY_ADDRESS" in os.environ else RAY_ROWS):
        yield from (work(shared, bucket) for bucket in range(buckets))
    else:
        yield from _on_ray(work, shared, buckets, settings)


def _on_ray(work: Callable[[Any, int], Any], shared: Any, buckets: int, settings: Settings) -> Iterator[Any]:
    """One task a core: logical CPUs may be more than there are, and memory is a bucket for each running task."""
    import ray

    connect(settings)
    task = ray.remote(num_cpus=1, runtime_env={"env_vars": {"POLARS_MAX_THREADS": "1"}})(work)
    handle = ray.put(shared)
    at_once = max(1, min(int(ray.cluster_resources()["CPU"]), len(ray.nodes()) * (os.cpu_count() or 1)))
    waiting = iter(range(buckets))
    running = deque(task.remote(handle, bucket) for bucket in islice(waiting, at_once))
    while running:
        yield ray.get(running.popleft())
        running.extend(task.remote(handle, bucket) for bucket in islice(waiting, 1))
