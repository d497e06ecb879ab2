"""Actions on their way into the lake: `landed/realtime/day=YYYY-MM-DD/<id>.parquet`, read by the next `ingest`."""

from __future__ import annotations

import io
import os
import uuid
from pathlib import Path

import polars as pl

from components.contract import ACTIONS
from pinloom.lake import Lake
from pinloom.serving.schemas import Action

NAMESPACE = uuid.UUID("6f1d0f0e-5f0c-5b7e-9a55-1d1e5c0a7b10")


def frame(actions: list[Action]) -> pl.DataFrame:
    """The contract's `actions` columns, one row per `event_id` (the first one sent)."""
    rows = {a.event_id: a for a in reversed(actions)}
    return pl.DataFrame([a.model_dump() for a in reversed(rows.values())], schema=ACTIONS)


def land(lake: Lake, actions: pl.DataFrame) -> list[str]:
    """Store the actions durably under the UTC day of each one's timestamp. Returns the URIs.

    A file is named by its events, so that a post that was repeated because its answer got lost lands once.
    """
    uris = []
    for (day,), rows in actions.group_by(pl.col("timestamp").dt.date(), maintain_order=True):
        name = uuid.uuid5(NAMESPACE, "\n".join(sorted(rows["event_id"])))
        uri = lake.path("landed", "realtime", f"day={day}", f"{name}.parquet")
        buffer = io.BytesIO()
        rows.write_parquet(buffer, compression="zstd")
        if not lake.exists(uri):
            _write(lake, uri, buffer.getvalue())
        uris.append(uri)
    return uris


def _write(lake: Lake, uri: str, content: bytes) -> None:
    """On an object store a finished upload is durable; on a disk it is once file and folder are synced."""
    if not lake.is_local:
        lake.fs.pipe_file(uri, content)
        return
    path = Path(uri.removeprefix("file://"))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with partial.open("wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
