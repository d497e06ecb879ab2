"""Small logs written to a folder, and the YAML that maps them."""

from pathlib import Path
from typing import Any

import polars as pl
import yaml

from pinloom.datasets import DatasetSpec, load_dataset

CONTRACT: dict[str, Any] = {
    "name": "shop",
    "actions": [
        {"name": "impression", "role": "impression"},
        {"name": "click", "role": "positive"},
        {"name": "like", "role": "positive"},
        {"name": "hate", "role": "negative", "utility": -1.0},
    ],
    "ties": "ordered",
    "splits": {"burn_in": "2022-04-10", "validation": "2022-04-12", "test": "2022-04-13", "end": "2022-04-14"},
    "buckets": 2,
}

MINUTE = 60_000
DAY = 86_400_000
START_MS = 1_649_548_800_000
"""2022-04-10T00:00:00Z."""


def wide_log(rows: int = 8) -> pl.DataFrame:
    """One exposure a row, half a day apart, with 0/1 feedback: `uid`, `vid`, `ms`, `is_click`, `is_like`, `stars`."""
    return pl.DataFrame(
        {
            "uid": [i % 3 for i in range(rows)],
            "vid": [f"v{i % 5}" for i in range(rows)],
            "ms": [START_MS + i * DAY // 2 for i in range(rows)],
            "is_click": [i % 2 for i in range(rows)],
            "is_like": [int(i == 3) for i in range(rows)],
            "stars": [float(i % 5 + 1) for i in range(rows)],
        }
    )


WIDE: dict[str, Any] = {
    "files": "log.parquet",
    "columns": {"user_id": "uid", "item_id": "vid"},
    "time": {"timestamp": {"column": "ms", "unit": "ms"}},
    "every_row": ["impression"],
    "feedback": {"click": "is_click", "like": "is_like"},
}


def write_yaml(folder: Path, tables: dict[str, Any], **sections: Any) -> Path:
    path = folder / "shop.yaml"
    said = {"contract": CONTRACT, "source": {"root": ".", "tables": tables}} | sections
    path.write_text(yaml.safe_dump(said))
    return path


def declare(folder: Path, tables: dict[str, Any], **sections: Any) -> DatasetSpec:
    return load_dataset(str(write_yaml(folder, tables, **sections)))


def without(mapping: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {k: v for k, v in mapping.items() if k not in keys}
