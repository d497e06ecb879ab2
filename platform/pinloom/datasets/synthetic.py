"""`pinloom generate`: a synthetic log as files, with the YAML that ingests it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from tqdm import tqdm

from components.errors import UserError
from components.generator import Catalogue, People, World, simulate

LIMITS = (1_000, 100_000_000)


def generate(actions: int, out: Path, seed: int = 0) -> dict[str, Any]:
    """Write a log of about `actions` rows under `out`, one user bucket at a time; memory is that of one bucket.

        actions/<bucket>.parquet  boards/<bucket>.parquet  users/<bucket>.parquet  items.parquet  dataset.yaml

    `users` also says what was planted (`tastes`, `dislikes`, `offset_ms`), which the YAML maps nowhere. The bytes of a
    bucket depend on the world and the bucket only.

    Raises:
        UserError: the number of actions is out of range, or `out` holds something else.
    """
    if not LIMITS[0] <= actions <= LIMITS[1]:
        raise UserError(f"cannot generate {actions:,} actions", f"choose from {LIMITS[0]:,} to {LIMITS[1]:,}")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty", "give a new folder with --out")
    world = World(actions=actions, seed=seed)
    catalogue = Catalogue(world)
    for folder in ("actions", "boards", "users"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    items = catalogue.frame()
    items.write_parquet(out / "items.parquet")
    rows = sum(_bucket(world, catalogue, items, bucket, out) for bucket in tqdm(range(world.buckets), unit="bucket"))
    path = out / "dataset.yaml"
    path.write_text(_yaml(world, out.resolve().name))
    return {"dataset": str(path), "actions": rows, "users": world.users, "items": world.items, "seed": seed}


def _bucket(world: World, catalogue: Catalogue, items: pl.DataFrame, bucket: int, out: Path) -> int:
    people = People(world, bucket)
    log = simulate(world, catalogue, people, bucket)
    name = f"{bucket:05d}.parquet"
    log.write_parquet(out / "actions" / name, compression="zstd")
    boards(log, items).write_parquet(out / "boards" / name, compression="zstd")
    people.frame().write_parquet(out / "users" / name, compression="zstd")
    return log.height


def boards(log: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """A user saves items of one topic onto one board: `board`, `item`, `time_ms`."""
    saves = log.filter(pl.col("action") == "save").join(items.select("item", "topic"), on="item", maintain_order="left")
    return saves.select(pl.concat_str("user", "topic", separator="/").alias("board"), "item", "time_ms")


def _yaml(world: World, name: str) -> str:
    said = {
        "contract": _contract(world, name),
        "source": {
            "root": ".",
            "tables": {
                "actions": {
                    "files": "actions/*.parquet",
                    "columns": {
                        "user_id": "user",
                        "item_id": "item",
                        "action": "action",
                        "surface": "surface",
                        "session_id": "session",
                        "request_id": "request",
                    },
                    "time": {"timestamp": {"column": "time_ms", "unit": "ms"}},
                },
                "boards": {
                    "files": "boards/*.parquet",
                    "columns": {"board_id": "board", "item_id": "item"},
                    "time": {"timestamp": {"column": "time_ms", "unit": "ms"}},
                },
                "items": {
                    "files": "items.parquet",
                    "columns": {"item_id": "item", "category": "topic", "title": "title"},
                    "time": {"created_at": {"column": "created_ms", "unit": "ms"}},
                    "categorical_features": {"topic": "topic", "style": "style"},
                    "numeric_features": {"quality": "quality"},
                },
                "users": {
                    "files": "users/*.parquet",
                    "columns": {"user_id": "user"},
                    "categorical_features": {"region": "region"},
                },
            },
        },
        "features": {
            "categorical": ["topic", "style"],
            "numeric": ["quality"],
            "text": ["title"],
            "crosses": ["topic"],
        },
    }
    head = f"# Written by `pinloom generate`: {json.dumps({'actions': world.actions, 'seed': world.seed})}\n"
    return head + yaml.safe_dump(said, sort_keys=False, width=100)


def _contract(world: World, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "actions": [
            {"name": "impression", "role": "impression"},
            {"name": "click", "role": "positive", "utility": 1.0},
            {"name": "save", "role": "positive", "utility": 2.0},
            {"name": "hide", "role": "negative", "utility": -5.0},
        ],
        "ties": "ordered",
        "splits": {
            "burn_in": world.day(0.1),
            "validation": world.day(0.7),
            "test": world.day(0.85),
            "end": world.day(1.0),
        },
        "buckets": max(4, min(1024, world.actions // 500_000)),
    }
