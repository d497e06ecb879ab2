"""The tables that a bucket of users yields: histories, user statistics and ranking rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.contract import FEATURE_PREFIX, Contract, Role, bucket_expr
from components.history.build import USER_NUMERIC
from components.history.examples import ExampleBuilder, in_sample, lists
from components.history.items import ItemTable
from components.history.log import UserLog, newest_first, numbers, with_rows
from components.history.requests import Requests, full, shown
from components.history.schema import FeatureSchema
from components.history.statistics import ItemStatistics, daily_counts
from pinloom.features.buckets import by_bucket, read_buckets
from pinloom.lake import Lake, Manifest
from pinloom.lake.manifest import FileEntry, Output

OUTPUTS = ("histories", "user_stats", "examples", "full_requests")
SPLITS = ("train", "validation", "test")
ROW_GROUP = 512
"""Requests per row group of `examples`: what a streaming reader takes at once."""

LEVEL = 1
"""Of zstd for ranking rows, most of what the step writes: a fifth larger than at the default, for two thirds of the
time."""

ACTION_COLUMNS = [
    "event_id",
    "user_id",
    "item_id",
    "action",
    "timestamp",
    "surface",
    "request_id",
    "sampling_probability",
]


@dataclass(frozen=True)
class BucketJob:
    """What a task needs to know about the step; plain values, so that it travels to any machine.

    Attributes:
        intervals: [start, stop) of each split, µs since epoch.
        sample: share of the training requests that is kept.
        home: (key, attempt) of the step: where its files go.
        groups: buckets that a task reads together.
    """

    lake_root: str
    contract: Contract
    source: Manifest
    schema: FeatureSchema
    as_of: datetime
    intervals: dict[str, tuple[int, int]]
    sample: float
    seed: int
    home: tuple[str, str]
    groups: tuple[range, ...]

    @property
    def snapshot(self) -> int:
        """The step's key as a 60-bit number: names the snapshot in the online store."""
        return int(self.home[0][:15], 16)

    @property
    def as_of_us(self) -> int:
        return micros(self.as_of)


@dataclass(frozen=True)
class BuildInputs:
    """`BucketJob` and the tables over items that all buckets read."""

    job: BucketJob
    items: ItemTable
    identity: NDArray[np.int32]
    codes: NDArray[np.int32]
    statistics: ItemStatistics
    users: pl.DataFrame


def micros(moment: datetime) -> int:
    return int(pl.Series([moment]).dt.epoch("us")[0])


def count_group(shared: tuple[BucketJob, pl.Series], group: int) -> pl.DataFrame:
    """First pass: daily counts of items among the positives of a group of buckets."""
    job, item_ids = shared
    lake, table, columns = Lake(job.lake_root), job.source.output("actions"), ["user_id", "item_id", "timestamp"]
    rows = read_buckets(lake, table, job.groups[group], columns, job.as_of, job.contract.names(Role.POSITIVE))
    positives = with_rows(rows, item_ids)
    user = numbers(positives, ["user_id"])
    return daily_counts(positives.select("item", user=user, timestamp=pl.col("timestamp").dt.epoch("us")))


def build_group(shared: BuildInputs, group: int) -> dict[str, list[FileEntry]]:
    """Second pass: write the tables of a group of buckets. Returns the files of each output."""
    job, buckets = shared.job, shared.job.groups[group]
    lake = Lake(job.lake_root)
    rows = read_buckets(lake, job.source.output("actions"), buckets, [*ACTION_COLUMNS, "bucket"], job.as_of)
    asked = dict(by_bucket(_full_requests(lake, job, buckets, shared.items.ids), buckets))
    written: dict[str, list[FileEntry]] = {name: [] for name in OUTPUTS}
    for bucket, part in by_bucket(with_rows(rows, shared.items.ids), buckets):
        for output, files in _build_bucket(shared, bucket, part, asked[bucket]).items():
            written[output] += files
    return written


def _build_bucket(
    shared: BuildInputs, bucket: int, rows: pl.DataFrame, asked: pl.DataFrame
) -> dict[str, tuple[FileEntry, ...]]:
    job = shared.job
    log = UserLog.from_actions(rows, job.contract)
    rows = rows.with_columns(pl.col("timestamp").dt.epoch("us"))
    builder = ExampleBuilder(log, shared.items, shared.statistics, job.schema, shared.identity, shared.codes)
    files = _Files(Lake(job.lake_root), job, bucket)
    files.by_bucket("histories", histories(log, shared.items, job))
    files.by_bucket("user_stats", user_stats(log, _users_of(shared.users, bucket), job))
    files.by_split("examples", builder, shown(rows, job.contract))
    if asked.height:
        files.by_split("full_requests", builder, full(asked, rows, job.contract))
    return files.written()


class _Files:
    """Writes one bucket's part of several outputs."""

    def __init__(self, lake: Lake, job: BucketJob, bucket: int) -> None:
        self.job, self.bucket = job, bucket
        key, attempt = job.home
        self._writers = {name: lake.writer("features", key, name, attempt) for name in OUTPUTS}

    def by_bucket(self, output: str, frame: pl.DataFrame) -> None:
        self._writers[output].parquet(f"{self.bucket:05d}.parquet", frame, partition=str(self.bucket))

    def by_split(self, output: str, builder: ExampleBuilder, asked: Requests) -> None:
        for split in SPLITS:
            part = _of_split(asked, split, self.job, sampled=output == "examples")
            if part.requests.height:
                name = f"{split}-{self.bucket:05d}.parquet"
                rows = builder.build(part, self.job.seed)
                self._writers[output].parquet(name, rows, partition=split, row_group_size=ROW_GROUP, level=LEVEL)

    def written(self) -> dict[str, tuple[FileEntry, ...]]:
        return {output: writer.output().files for output, writer in self._writers.items()}


def _of_split(asked: Requests, split: str, job: BucketJob, sampled: bool) -> Requests:
    start, stop = job.intervals[split]
    requests = asked.requests.filter(pl.col("timestamp").is_between(start, stop, closed="left"))
    if sampled and split == "train" and job.sample < 1:
        requests = requests.filter(in_sample(requests["request_id"], job.sample))
    return Requests(requests, asked.candidates)


def _full_requests(lake: Lake, job: BucketJob, group: range, item_ids: pl.Series) -> pl.DataFrame:
    """Rows of the contract's `requests` of these buckets' users, with `items` rows."""
    table = job.source.outputs.get("requests", Output())
    if not table.files:
        return pl.DataFrame(schema={"bucket": pl.UInt32})
    columns = ["bucket", "request_id", "user_id", "timestamp"]
    rows = read_buckets(lake, table, group, [*columns, "item_ids"], job.as_of)
    exploded = rows.select(*columns, item_id="item_ids").explode("item_id")
    moment = pl.col("timestamp").dt.epoch("us")
    return with_rows(exploded, item_ids).group_by(*columns[:3], moment).agg(items="item")


def histories(log: UserLog, items: ItemTable, job: BucketJob) -> pl.DataFrame:
    """One row per user: parallel arrays, newest first, at most `max_history`; `item_key` survives a new item table."""
    end = log.start[1:]
    at, offsets = newest_first(np.maximum(log.start[:-1], end - job.contract.max_history), end)
    arrays: dict[str, NDArray[Any]] = {
        "item": log.item[at],
        "item_key": items.keys[log.item[at]],
        "action": log.action[at],
        "timestamp": log.timestamp[at],
        "surface": log.surface[at],
        "event": log.event[at],
    }
    return pl.DataFrame({"user_id": log.users}).with_columns(
        event_timestamp=_moment(job.as_of),
        snapshot=pl.lit(job.snapshot, pl.Int64),
        **{name: lists(values, offsets) for name, values in arrays.items()},
    )


def user_stats(log: UserLog, users: pl.DataFrame, job: BucketJob) -> pl.DataFrame:
    """One row per user of the log or the users table: statistics as of the snapshot, declared features, weight."""
    everyone = pl.concat([log.users.alias("user_id").to_frame(), users.select("user_id")]).unique().sort("user_id")
    index = log.index_of(everyone["user_id"])
    at = np.full(len(index), job.as_of_us)
    first, end = log.window(index, at, job.contract.max_history)
    numeric = log.user_numeric(index, at, first, end)
    frame = everyone.with_columns(
        event_timestamp=_moment(job.as_of),
        actions=pl.Series(end - first),
        **{name: pl.Series(numeric[:, i]) for i, name in enumerate(USER_NUMERIC)},
    )
    joined = frame.join(users.unique("user_id"), on="user_id", how="left", maintain_order="left")
    return joined.with_columns(weight=_weight(joined, job.contract))


def _weight(users: pl.DataFrame, contract: Contract) -> pl.Expr:
    """Product of the declared weights of a user's feature values; 1 where nothing is declared."""
    product = pl.lit(1.0)
    for feature, weights in contract.user_weights.items():
        values = pl.col(FEATURE_PREFIX + feature).cast(pl.String)
        product = product * values.replace_strict(weights, default=1.0, return_dtype=pl.Float64).fill_null(1.0)
    return product.cast(pl.Float32)


def _users_of(users: pl.DataFrame, bucket: int) -> pl.DataFrame:
    return users.filter(pl.col("bucket") == bucket).drop("bucket")


def with_buckets(users: pl.DataFrame, buckets: int) -> pl.DataFrame:
    """The users table with the bucket of each user."""
    return users.with_columns(bucket=bucket_expr(users["user_id"], buckets))


def _moment(as_of: datetime) -> pl.Expr:
    return pl.lit(as_of, dtype=pl.Datetime("us", "UTC"))
