"""A lake with the features of a small planted ranking log, so that shipped recipes run through the `train` step."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from components.history.items import ItemTable
from pinloom.lake import Lake, Manifest
from tests.components.models.conftest import (
    DAY,
    PER_TOPIC,
    START,
    TOPICS,
    planted_contract,
    planted_items,
    planted_requests,
    planted_schema,
)

REQUESTS = {"train": 400, "validation": 100}
USERS = 240


def write_dataset(folder: Path) -> Path:
    """A YAML with the planted contract; nothing is ingested from it."""
    path = folder / "planted.yaml"
    path.write_text(yaml.safe_dump({"contract": planted_contract().model_dump(mode="json"), "source": {}}))
    return path


def planted_histories(rng: np.random.Generator, items: ItemTable) -> pl.DataFrame:
    """Each user saves items of one topic, newest first, over 100 days that cross the validation date."""
    rows = []
    for number in range(USERS):
        length = int(rng.integers(10, 40))
        topic = rng.integers(TOPICS)
        item = 1 + topic * PER_TOPIC + rng.integers(PER_TOPIC, size=length)
        rows.append(
            {
                "user_id": f"u{number}",
                "item": item,
                "item_key": items.keys[item],
                "action": np.ones(length, np.int16),
                "surface": np.zeros(length, np.int32),
                "timestamp": np.sort(START + rng.integers(100 * DAY, size=length))[::-1],
            }
        )
    types = {"item": pl.Int32, "item_key": pl.Int64, "action": pl.Int16, "surface": pl.Int32, "timestamp": pl.Int64}
    return pl.DataFrame(rows, schema={"user_id": pl.String, **{name: pl.List(t) for name, t in types.items()}})


def publish_features(lake: Lake, scratch: Path) -> Manifest:
    """Publish `features` and point to it."""
    rng = np.random.default_rng(0)
    items = planted_items(rng)
    items.save(scratch / "items")
    writers = {
        name: lake.writer("features", "ranking", name, "0") for name in ("items", "schema", "examples", "histories")
    }
    for file in sorted((scratch / "items").iterdir()):
        writers["items"].upload(file)
    writers["schema"].bytes("schema.json", planted_schema().to_json().encode())
    for split, requests in REQUESTS.items():
        frame = planted_requests(rng, items, requests)
        writers["examples"].parquet(f"{split}.parquet", frame, partition=split, row_group_size=64)
    writers["histories"].parquet("0.parquet", planted_histories(rng, items), partition="0", row_group_size=64)
    outputs = {name: writer.output() for name, writer in writers.items()}
    manifest = lake.publish(
        Manifest(
            step="features",
            version=1,
            key="ranking",
            created_at=datetime.now(UTC),
            outputs=outputs,
            metrics={"vectors": "ranking-vectors", "as_of": "2024-04-01"},
        )
    )
    lake.move("features", manifest.uri, 0)
    return manifest
