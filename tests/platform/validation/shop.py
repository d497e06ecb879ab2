"""A tiny data set, and logs of it that landed."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from components.contract import TABLES
from pinloom.datasets import DatasetSpec
from pinloom.lake import Lake, Manifest
from pinloom.lake.manifest import digest
from pinloom.settings import Settings
from pinloom.steps.base import Step, run_step
from pinloom.steps.validate import STEP

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
LANDED_AT = datetime(2026, 6, 1, tzinfo=UTC)
DAYS = ("2026-03-02", "2026-04-01", "2026-04-08", "2026-05-01")
ITEMS = [f"i{n}" for n in range(20)]


def spec(ties: str = "unordered", **validation: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "contract": {
                "name": "shop",
                "actions": [
                    {"name": "save", "role": "positive"},
                    {"name": "hide", "role": "negative"},
                    {"name": "view", "role": "impression"},
                ],
                "ties": ties,
                "splits": {
                    "burn_in": "2026-03-02",
                    "validation": "2026-04-01",
                    "test": "2026-04-08",
                    "end": "2026-05-01",
                },
                "buckets": 4,
            },
            "source": {"reader": "nothing:Nothing"},
            "validation": validation,
            "path": "shop.yaml",
        }
    )


def action(n: int, **change: Any) -> dict[str, Any]:
    """Row `n` of a log: ten a day, five users, three to a moment."""
    row = {
        "event_id": f"e{n}",
        "user_id": f"u{n % 5}",
        "item_id": ITEMS[n % len(ITEMS)],
        "action": ("save", "hide", "view")[n % 3],
        "timestamp": FIRST + timedelta(days=n // 10, hours=(n % 10) // 3),
        "value": 1.0,
    }
    return row | change


def table(name: str, rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=TABLES[name], orient="row")


def items(ids: Iterable[str] = ITEMS) -> pl.DataFrame:
    return table("items", ({"item_id": i, "created_at": None, "created_at_inferred": False} for i in ids))


def land(
    lake: Lake, tables: dict[str, pl.DataFrame], *, days: tuple[int, int] | None = None, key: str = ""
) -> Manifest:
    """Publish what `ingest` would have: tables by day, `items` and `users` whole.

    Args:
        days: half-open interval that it covers, counted from `FIRST`; None = not said.
    """
    said = {} if days is None else dict(zip(("start", "stop"), map(_day, days), strict=True))
    key = digest([said, {n: f.write_json() for n, f in tables.items()}])
    outputs = {}
    for name in TABLES:
        frame = tables.get(name, items() if name == "items" else table(name, []))
        writer = lake.writer("ingest", key, name, "attempt")
        if name in ("items", "users"):
            writer.parquet(f"{name}.parquet", frame)
        else:
            for (day,), rows in frame.group_by(pl.col("timestamp").dt.date(), maintain_order=True):
                partition = str(day or "")
                writer.parquet(f"{partition or 'undated'}/00000.parquet", rows, partition=partition)
        outputs[name] = writer.output()
    landed = Manifest(step="ingest", version=1, key=key, created_at=LANDED_AT, params=said, outputs=outputs)
    return lake.publish(landed)


def _day(n: int) -> str:
    return str((FIRST + timedelta(days=n)).date())


def validate(lake: Lake, landed: Manifest, declared: DatasetSpec | None = None, step: Step = STEP) -> Manifest:
    return run_step(step, lake=lake, settings=Settings(), spec=declared or spec(), inputs={"ingest": landed})


def read(lake: Lake, manifest: Manifest, output: str, partition: str | None = None) -> pl.DataFrame:
    """Rows of an output in the order in which its files hold them; files of differing columns are joined."""
    files = [f for f in manifest.output(output).files if partition in (None, f.partition)]
    frames = [pl.read_parquet(lake.local_path(f.uri)) for f in files]
    return pl.concat(frames, how="diagonal") if frames else pl.DataFrame()
