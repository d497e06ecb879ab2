"""A small log as `validate` publishes it: 30 users, 12 days, requests of 6 exposures of 40 items, much of it tied."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.contract import ACTIONS, ITEMS, REQUESTS, bucket_expr
from pinloom.datasets.spec import DatasetSpec
from pinloom.lake import Lake, Manifest
from pinloom.settings import Settings
from pinloom.steps.base import load_step, run_step

START, DAYS = date(2026, 3, 1), 12
LAST = START + timedelta(days=DAYS - 1)
USERS = [f"user {i}" for i in range(30)]
ITEM_IDS = [f"item-{i:02d}" for i in range(40)]
COLOURS = ["red", "green", "blue", None]


def spec(**contract: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "contract": {
                "name": "small-log",
                "actions": [
                    {"name": "like", "role": "positive"},
                    {"name": "hide", "role": "negative", "utility": -1},
                    {"name": "view", "role": "impression"},
                ],
                "ties": "unordered",
                "splits": {
                    "burn_in": START.isoformat(),
                    "validation": (LAST - timedelta(days=3)).isoformat(),
                    "test": (LAST - timedelta(days=1)).isoformat(),
                    "end": (LAST + timedelta(days=1)).isoformat(),
                },
                "user_weights": {"country": {"xx": 2.0}},
                "buckets": 3,
                **contract,
            },
            "source": {},
            "features": {
                "categorical": ["colour"],
                "numeric": ["size"],
                "text": ["title"],
                "crosses": ["colour"],
                "sequence_length": 10,
            },
        }
    )


def items() -> pl.DataFrame:
    n = len(ITEM_IDS)
    frame = pl.DataFrame(
        {
            "item_id": ITEM_IDS[::-1],
            "created_at": [datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=i) for i in range(n)],
            "created_at_inferred": [False] * n,
            "category": [COLOURS[i % 4] for i in range(n)],
            "title": [f"{COLOURS[i % 4] or 'plain'} thing of kind {i % 7}" for i in range(n)],
        },
        schema=ITEMS,
    )
    colour, size = pl.Series([COLOURS[i % 4] for i in range(n)]), pl.Series([float(i % 5) or None for i in range(n)])
    return frame.with_columns(colour.alias("features.colour"), size.alias("features.size"))


def actions(seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for user in USERS[:-1]:
        for day in range(DAYS):
            for hour in sorted(rng.choice(24, 2, replace=False)):
                moment = datetime(START.year, START.month, START.day, tzinfo=UTC) + timedelta(days=day, hours=int(hour))
                rows += _request(rng, user, moment)
    return pl.DataFrame(rows, schema=ACTIONS)


def _request(rng: np.random.Generator, user: str, moment: datetime) -> list[dict[str, Any]]:
    request = f"{user}/{moment.isoformat()}"
    shared = {"user_id": user, "request_id": request, "surface": "home", "timestamp": moment}
    rows: list[dict[str, Any]] = []
    for item in rng.choice(ITEM_IDS, 6, replace=False):
        seen = {**shared, "item_id": str(item), "action": "view", "sampling_probability": 0.5}
        rows.append({**seen, "event_id": f"{request}/{item}/view"})
        draw = rng.random()
        if draw < 0.5:
            word = "like" if draw < 0.35 else "hide"
            rows.append({**shared, "item_id": str(item), "action": word, "event_id": f"{request}/{item}/{word}"})
    return rows


def requests(log: pl.DataFrame) -> pl.DataFrame:
    """Three of the last day's requests, with all items."""
    late = log.filter(pl.col("timestamp").dt.date() == LAST).unique("request_id").sort("request_id").head(3)
    return (
        late.select("request_id", "user_id", "timestamp", item_ids=pl.lit([*ITEM_IDS, "gone"]))
        .cast({"item_ids": pl.List(pl.String)})
        .select(list(REQUESTS))
    )


def later_items() -> pl.DataFrame:
    """The catalogue of another day: three items more, before, between and after the others."""
    new = items()[:3].with_columns(item_id=pl.Series(["a new item", "item-05-b", "z"]), title=pl.lit("red new thing"))
    return pl.concat([new, items()])


def publish(lake: Lake, log: pl.DataFrame, of: DatasetSpec, catalogue: pl.DataFrame | None = None) -> Manifest:
    """Point `actions` at the log."""
    catalogue = items() if catalogue is None else catalogue
    users = pl.DataFrame({"user_id": USERS, "features.country": ["xx", "yy", None] * 10})
    outputs = {}
    for name, frame in {"actions": log, "requests": requests(log)}.items():
        outputs[name] = lake.writer("table", f"{log.height}-{catalogue.height}", name, "0")
        laid = frame.with_columns(bucket_expr(frame["user_id"], of.contract.buckets))
        laid = laid.sort("bucket", "user_id", "timestamp", maintain_order=True)
        for (day,), rows in laid.group_by(pl.col("timestamp").dt.date(), maintain_order=True):
            outputs[name].parquet(f"{day}.parquet", rows, partition=str(day), row_group_size=50)
    for name, frame in {"items": catalogue, "users": users}.items():
        outputs[name] = lake.writer("table", f"{log.height}-{catalogue.height}", name, "0")
        outputs[name].parquet(f"{name}.parquet", frame)
    manifest = Manifest(
        step="table/actions",
        version=1,
        key=f"{log.height}-{catalogue.height}",
        created_at=datetime.now(UTC),
        outputs={name: writer.output() for name, writer in outputs.items()},
    )
    published = lake.publish(manifest)
    return lake.advance("actions", lambda _: published)


def run(lake: Lake, settings: Settings, of: DatasetSpec, step: str, **params: Any) -> Manifest:
    return run_step(load_step(step), lake=lake, settings=settings, spec=of, params=params)


def read(lake: Lake, manifest: Manifest, output: str, partition: str | None = None) -> pl.DataFrame:
    files = manifest.output(output)
    uris = files.uris if partition is None else files.partition(partition)
    return pl.concat([pl.read_parquet(lake.read_bytes(uri)) for uri in uris])


def local(tmp_path: Path) -> tuple[Lake, Settings]:
    return Lake(f"file://{tmp_path}/lake"), Settings(home=tmp_path / "home")
