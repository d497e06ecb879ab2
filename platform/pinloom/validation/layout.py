"""How the published tables lie: `actions` by day, sorted by (bucket, user, time), row groups cut at bucket borders."""

from __future__ import annotations

import polars as pl
import pyarrow.parquet as pq
import xxhash

from components.contract import ACTIONS, Contract, Ties, bucket_expr
from pinloom.lake import OutputWriter
from pinloom.validation.days import DAY

TIE_SEED = 0x7E5


def arrange(frame: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Sort by (day, bucket, user, time) and add `bucket`.

    Rows of one user with equal times keep the order of the source when the data set says that it means something;
    else they are permuted by a seeded hash of the event, so that no stored order can be learned from.
    """
    frame = frame.with_columns(bucket_expr(frame["user_id"], contract.buckets))
    order = [DAY, "bucket", "user_id", "timestamp"]
    if contract.ties is Ties.ORDERED:
        return frame.sort(order, maintain_order=True)
    shuffled = pl.Series(
        "tie", [xxhash.xxh64_intdigest(e.encode(), TIE_SEED) for e in frame["event_id"]], dtype=pl.UInt64
    )
    return frame.with_columns(shuffled).sort(*order, "tie", "event_id").drop("tie")


def with_bucket(frame: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Put `bucket` first where rows belong to a user, so that a bucket's task reads only its own."""
    if "user_id" not in frame.columns:
        return frame
    return frame.select(bucket_expr(frame["user_id"], contract.buckets), pl.all())


def write_actions(frame: pl.DataFrame, contract: Contract, output: OutputWriter) -> None:
    """Write one file per day, one row group per bucket. `frame` has the contract's columns and `day`."""
    for (day,), rows in arrange(frame, contract).group_by(DAY, maintain_order=True):
        table = rows.select("bucket", *ACTIONS).to_arrow(compat_level=pl.CompatLevel.oldest())
        with (
            output.open(f"{day}.parquet", partition=str(day), rows=rows.height) as file,
            pq.ParquetWriter(file, table.schema, compression="zstd") as writer,
        ):
            start = 0
            for length in rows["bucket"].rle().struct.field("len"):
                writer.write_table(table.slice(start, length), row_group_size=length)
                start += length


def write_days(frame: pl.DataFrame, output: OutputWriter, prefix: str = "") -> None:
    """Write the rows of each day to a file of its own, in a canonical order."""
    plain = [c for c, t in frame.schema.items() if not t.is_nested()]
    for (day,), rows in frame.sort(plain).group_by(DAY, maintain_order=True):
        output.parquet(f"{prefix}{day}.parquet", rows.drop(DAY), partition=str(day))
