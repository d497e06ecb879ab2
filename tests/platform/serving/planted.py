"""A small planted log, published as `validate` would: everyone buys from one category and hides another."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import torch

from components.contract import ACTIONS, ITEMS, bucket_expr
from components.recipe import Rank, RecipeInputs, make_recipe
from pinloom.datasets.spec import DatasetSpec
from pinloom.lake import Lake, Manifest, OutputWriter
from pinloom.training.job import LakeTables
from tests.components.models.pinfm_ranker.conftest import write_base

CATEGORIES = ("wool", "linen", "silk", "felt")
USERS = [f"user-{i}" for i in range(40)]
ITEMS_PER_CATEGORY = 15
START, DAYS = date(2026, 1, 1), 40

SPEC = DatasetSpec.model_validate(
    {
        "contract": {
            "name": "planted",
            "actions": [
                {"name": "buy", "role": "positive"},
                {"name": "hide", "role": "negative", "utility": -0.5},
                {"name": "seen", "role": "impression"},
            ],
            "ties": "ordered",
            "splits": {"burn_in": "2026-01-05", "validation": "2026-01-29", "test": "2026-02-02", "end": "2026-02-10"},
            "buckets": 4,
        },
        "source": {},
        "graph": {"edges": [{"source": "actions"}], "pairs": {"window_hours": 72}},
        "features": {
            "categorical": ["category"],
            "text": ["title"],
            "crosses": ["category"],
            "sequence_length": 20,
        },
    }
)


def items() -> pl.DataFrame:
    rows = [
        {
            "item_id": f"{category}-{i}",
            "created_at": datetime(2025, 12, 1, tzinfo=UTC),
            "created_at_inferred": False,
            "category": category,
            "title": f"{category} number {i}",
        }
        for category in CATEGORIES
        for i in range(ITEMS_PER_CATEGORY)
    ]
    return pl.DataFrame(rows, schema=ITEMS)


LAST = START + timedelta(days=DAYS - 1)
"""On the last day everybody has two requests, so that the second one's history is partly of the same day."""


def actions(seed: int = 0) -> pl.DataFrame:
    """Every other day each user is shown 8 items, buys what is of the favourite category and hides the next one."""
    rng = np.random.default_rng(seed)
    rows = [
        row
        for u in range(len(USERS))
        for day in range(DAYS)
        for hour in _hours(u, day)
        for row in _request(rng, u, datetime(START.year, 1, 1, hour, u, tzinfo=UTC) + timedelta(days=day))
    ]
    return pl.DataFrame(rows, schema=ACTIONS)


def _hours(u: int, day: int) -> tuple[int, ...]:
    if day == DAYS - 1:
        return (9, 15)
    return (9,) if day % 2 == u % 2 else ()


def _request(rng: np.random.Generator, u: int, moment: datetime) -> Iterator[dict[str, object]]:
    names = items()["item_id"].to_list()
    did = {CATEGORIES[u % 4]: "buy", CATEGORIES[(u + 1) % 4]: "hide"}
    request = f"{USERS[u]}/{moment.isoformat()}"
    for place, i in enumerate(rng.choice(len(names), 8, replace=False)):
        shown = {"user_id": USERS[u], "item_id": names[i], "surface": "shelf", "request_id": request}
        yield {**shown, "event_id": f"{request}/{place}", "action": "seen", "timestamp": moment}
        action = did.get(names[i].split("-")[0])
        if action and rng.random() < 0.9:
            later = moment + timedelta(seconds=30 + place)
            yield {**shown, "event_id": f"{request}/{place}/{action}", "action": action, "timestamp": later}


def publish(lake: Lake, log: pl.DataFrame, catalogue: pl.DataFrame | None = None, key: str = "planted") -> Manifest:
    """The table pointer `actions`, as `validate` leaves it."""
    buckets, catalogue = SPEC.contract.buckets, items() if catalogue is None else catalogue
    log = log.with_columns(bucket_expr(log["user_id"], buckets)).sort("bucket", "user_id", "timestamp")
    table = lake.writer("validate", key, "actions", "0")
    for (day,), rows in log.group_by(pl.col("timestamp").dt.date(), maintain_order=True):
        table.parquet(f"{day}.parquet", rows, partition=str(day))
    outputs = {"actions": table}
    for name, frame in {"items": catalogue, "users": pl.DataFrame({"user_id": USERS})}.items():
        outputs[name] = lake.writer("validate", key, name, "0")
        outputs[name].parquet(f"{name}.parquet", frame)
    return advance(lake, "actions", "validate", outputs, key=key)


def advance(
    lake: Lake, pointer: str, step: str, outputs: dict[str, OutputWriter], key: str = "planted", **said: object
) -> Manifest:
    """Publish outputs as the manifest of `step` and point at it."""
    manifest = lake.publish(
        Manifest.model_validate(
            {
                "step": step,
                "version": 1,
                "key": key,
                "created_at": datetime.now(UTC),
                "outputs": {name: writer.output() for name, writer in outputs.items()},
                **said,
            }
        )
    )
    return lake.advance(pointer, lambda _: manifest)


def publish_base(lake: Lake, scratch: Path) -> Manifest:
    """A PinFM of debug size with random weights, pointed at as a promoted run."""
    artifact = lake.writer("train", "pretrained", "artifact", "0")
    write_base(scratch / "base", tuple(SPEC.contract.action_index))
    artifact.upload(scratch / "base", name=".")
    return advance(
        lake, "champions/pinfm", "train", {"artifact": artifact}, key="pretrained", params={"recipe": "pinfm"}
    )


def train(
    lake: Lake,
    features: Manifest,
    scratch: Path,
    *,
    seed: int = 0,
    key: str = "run-0",
    family: str = "transact",
    **extras: Manifest,
) -> Manifest:
    """A debug ranker after an epoch of plain gradient descent, published and pointed at as a promoted run."""
    tables = LakeTables(lake.root, features, *extras.values())
    inputs = RecipeInputs(SPEC.contract, tables, vectors=str(features.metrics["vectors"]), seed=seed)
    recipe = make_recipe(family, inputs, "debug")
    torch.manual_seed(seed)
    model = recipe.build_model()
    for batch in recipe.train_batches(Rank()):
        loss, _ = recipe.loss(model, batch)
        loss.backward()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.grad is not None:
                    weight -= 0.1 * weight.grad
                    weight.grad = None
    recipe.export(model.eval(), scratch / key)
    artifact = lake.writer("train", key, "artifact", "0")
    artifact.upload(scratch / key, name=".")
    read = {given: {"uri": m.uri, "sha256": m.content_hash()} for given, m in {"features": features, **extras}.items()}
    said = {"key": key, "inputs": read, "params": {"recipe": recipe.name}}
    return advance(lake, f"champions/{recipe.name}", "train", {"artifact": artifact}, **said)
