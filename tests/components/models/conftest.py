"""Ranking rows with planted structure, in the schema of the `features` step."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from components.contract import Contract
from components.history.items import ItemTable
from components.history.keys import keys
from components.history.schema import FeatureSchema, id_hash
from components.recipe import RecipeInputs

# The suite shares its cores: more threads than idle cores make small matrices slower, not faster.
torch.set_num_threads(1)

DAY = 86_400_000_000
TOPICS, PER_TOPIC = 8, 25
START = 17_500 * DAY


def planted_contract() -> Contract:
    return Contract.model_validate(
        {
            "name": "planted",
            "actions": [
                {"name": "save", "role": "positive"},
                {"name": "hide", "role": "negative", "utility": -1.0},
                {"name": "impression", "role": "impression"},
            ],
            "ties": "ordered",
            "splits": {"burn_in": "2017-12-01", "validation": "2018-02-01", "test": "2018-03-01", "end": "2018-04-01"},
        }
    )


def planted_schema() -> FeatureSchema:
    return FeatureSchema(
        service="transact_ranking_v2",
        heads=("save", "hide"),
        actions=("save", "hide", "impression"),
        item_numeric=("popularity",),
        candidate_numeric=("popularity", "noise"),
        user_numeric=("log_actions",),
        categorical=("shape",),
        crosses=(),
        sequence_length=30,
        positive=(1,),
    )


def planted_items(rng: np.random.Generator) -> ItemTable:
    """An item's vector says its topic; its other features say nothing."""
    topics = np.concatenate([[0], np.repeat(np.arange(TOPICS), PER_TOPIC)])
    centres = np.linalg.qr(rng.normal(size=(32, TOPICS)))[0].T
    vectors = centres[topics] + 0.05 * rng.normal(size=(len(topics), 32))
    vectors[0] = 0
    ids = ["", *(f"i{n:04d}" for n in range(TOPICS * PER_TOPIC))]
    hashes = np.array([id_hash(i or None) for i in ids], np.int32)
    shape = np.array([0, *(id_hash(f"shape{rng.integers(4)}") for _ in ids[1:])], np.int32)
    labels = pl.DataFrame({"row": np.arange(len(ids)), "item_id": ids, "category": [f"t{t}" for t in topics]})
    labels = labels.with_columns(created_at=pl.lit(None, pl.Datetime("us", "UTC")), title=pl.lit(""))
    return ItemTable(
        keys=np.where(np.arange(len(ids)) == 0, -1, keys(ids)),
        vectors=vectors.astype(np.float16),
        categorical=shape[:, None],
        hash=hashes,
        numeric=np.zeros((len(ids), 1), np.float32),
        labels=labels,
    )


def planted_requests(rng: np.random.Generator, items: ItemTable, requests: int, candidates: int = 12) -> pl.DataFrame:
    """Each user likes one topic and dislikes another; only the history tells which."""
    return pl.DataFrame([_request(rng, items, n, candidates) for n in range(requests)], schema=SCHEMA)


SCHEMA: dict[str, Any] = {
    "request_id": pl.String,
    "user_id": pl.String,
    "timestamp": pl.Datetime("us", "UTC"),
    "history_item": pl.List(pl.Int32),
    "history_action": pl.List(pl.Int16),
    "history_timestamp": pl.List(pl.Int64),
    "history_surface": pl.List(pl.Int32),
    "candidate_item": pl.List(pl.Int32),
    "candidate_hash": pl.List(pl.Int32),
    "candidate_surface": pl.List(pl.Int32),
    "candidate_numeric": pl.List(pl.Float32),
    "candidate_sampling": pl.List(pl.Float32),
    "labels": pl.List(pl.Int32),
    "user_hash": pl.Int32,
    "user_numeric": pl.List(pl.Float32),
}


def _request(rng: np.random.Generator, items: ItemTable, number: int, n: int) -> dict:
    liked, disliked = rng.permutation(TOPICS)[:2]
    length = int(rng.integers(6, 30))
    action = rng.choice([1, 2], size=length)
    topic = np.where(action == 1, liked, disliked)
    shown = 1 + rng.choice(TOPICS * PER_TOPIC, size=n, replace=False)
    shown[:2] = 1 + np.array([liked, disliked]) * PER_TOPIC + rng.integers(PER_TOPIC, size=2)
    shown = rng.permutation(shown)
    shown_topic = (shown - 1) // PER_TOPIC
    save = (shown_topic == liked) & (rng.random(n) < 0.8)
    hide = (shown_topic == disliked) & (rng.random(n) < 0.8)
    at = START + number * 3_600_000_000
    user = f"u{rng.integers(400)}"
    return {
        "request_id": f"r{number}",
        "user_id": user,
        "timestamp": at,
        "history_item": 1 + topic * PER_TOPIC + rng.integers(PER_TOPIC, size=length),
        "history_action": action,
        "history_timestamp": at - np.cumsum(rng.integers(60_000_000, DAY, size=length)),
        "history_surface": np.zeros(length, np.int32),
        "candidate_item": shown,
        "candidate_hash": items.hash[shown],
        "candidate_surface": np.zeros(n, np.int32),
        "candidate_numeric": rng.normal(size=2 * n),
        "candidate_sampling": np.ones(n),
        "labels": save * 1 + hide * 2,
        "user_hash": id_hash(user),
        "user_numeric": [float(np.log1p(length))],
    }


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> RecipeInputs:
    return planted_inputs(tmp_path_factory.mktemp("planted"))


def planted_inputs(folder: Path) -> RecipeInputs:
    """Inputs of a recipe over 1,600 training and 300 validation requests."""
    rng = np.random.default_rng(0)
    items = planted_items(rng)
    items.save(folder / "items")
    (folder / "schema.json").write_text(planted_schema().to_json())
    for name, size in (("train", 1600), ("validation", 300)):
        planted_requests(rng, items, size).write_parquet(folder / f"{name}.parquet", row_group_size=128)
    return RecipeInputs(
        contract=planted_contract(),
        tables={
            "items": [str(p) for p in (folder / "items").iterdir()],
            "schema": [str(folder / "schema.json")],
            "examples/train": [str(folder / "train.parquet")],
            "examples/validation": [str(folder / "validation.parquet")],
        },
        vectors="planted",
    )
