"""The trap: rows of a basket share one timestamp and are stored sorted by product id. Order by id is no information.

Whatever reads it learns the names of the products. So all products are renamed at random, which turns every stored
order around, and nothing that is measured may change by more than noise.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.contract import Splits, Ties, bucket_expr
from pinloom.datasets import load_dataset
from pinloom.datasets.spec import DatasetSpec
from pinloom.lake import Lake, Manifest
from pinloom.settings import Settings, TrainingSettings
from pinloom.steps.base import load_step, run_step
from pinloom.steps.job import open_lake
from tests.platform.evaluation.lab import Lab
from tests.platform.serving import planted

EPOCHS = 8
"""Until the seed no longer matters: intervals over requests know nothing of the variance of a model half trained."""

UNTRAINED = ("popularity", "personal")
"""Rivals whose scores are functions of counts alone: renaming must not move them at all."""


def renaming(ids: pl.Series, seed: int) -> pl.DataFrame:
    """`item_id`, `renamed`: a random permutation of the ids that there are."""
    distinct = ids.unique().sort()
    order = np.random.default_rng(seed).permutation(len(distinct))
    return pl.DataFrame({"item_id": distinct, "renamed": distinct.gather(order)})


def renamed(frame: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    """The frame with other item ids, alone or in lists, in the columns' old order."""
    if "item_ids" in frame.columns:
        return frame.with_columns(
            pl.col("item_ids").list.eval(pl.element().replace_strict(names["item_id"], names["renamed"]))
        )
    if "item_id" not in frame.columns:
        return frame
    return frame.with_columns(pl.col("item_id").replace_strict(names["item_id"], names["renamed"]))


def publish(lake: Lake, spec: DatasetSpec, tables: dict[str, pl.DataFrame], names: pl.DataFrame | None) -> Manifest:
    """The table `actions`: rows of one user and moment sorted by item id, as such logs come."""
    outputs = {}
    for table, frame in tables.items():
        frame = frame if names is None else renamed(frame, names)
        writer = lake.writer("validate", "trap", table, "0")
        if table in ("actions", "requests"):
            frame = frame.with_columns(bucket_expr(frame["user_id"], spec.contract.buckets))
            by = [c for c in ("bucket", "user_id", "timestamp", "item_id") if c in frame.columns]
            for (day,), rows in frame.sort(by).group_by(pl.col("timestamp").dt.date(), maintain_order=True):
                writer.parquet(f"{day}.parquet", rows, partition=str(day))
        else:
            writer.parquet(f"{table}.parquet", frame)
        outputs[table] = writer.output()
    manifest = Manifest(step="table/actions", version=1, key="trap", created_at=datetime.now(UTC), outputs=outputs)
    return lake.publish(manifest)


def measured(home: Path, spec: DatasetSpec, tables: dict[str, pl.DataFrame], names: pl.DataFrame | None) -> dict:
    """Metrics of the whole path: features, training, evaluation."""
    settings = Settings(home=home, training=TrainingSettings(workers=1, log_every_s=60))
    lake = open_lake(settings, spec.name)
    (home / "scratch").mkdir(parents=True)
    actions = publish(lake, spec, tables, names)
    features = run_step(load_step("features"), lake=lake, settings=settings, spec=spec, inputs={"actions": actions})
    lab = Lab(settings, lake, features, home / "scratch", spec)
    train = lab.train("one", epochs=EPOCHS)
    return lab.step("evaluate", {"ablation": False, "resamples": 200, "full_requests": 0}, train=train).metrics


def assert_within_noise(before: dict, after: dict) -> None:
    assert (before["requests"], before["rows"], before["chosen"]) == tuple(
        after[k] for k in ("requests", "rows", "chosen")
    )
    for section in ("headline", "heads"):
        for ranker, by_metric in before[section].items():
            for metric, (value, low, high) in by_metric.items():
                other, other_low, other_high = after[section][ranker][metric]
                exact = ranker in UNTRAINED
                noise = 1e-5 if exact else (high - low) + (other_high - other_low)
                assert abs(value - other) <= noise, f"{section}: {metric} of {ranker}: {value} and {other}"


def tied(log: pl.DataFrame) -> pl.DataFrame:
    """A request's actions at the request's moment: a basket."""
    return log.with_columns(pl.col("timestamp").min().over("request_id"))


def test_renaming_all_items_moves_no_metric(tmp_path):
    contract = planted.SPEC.contract.model_copy(update={"ties": Ties.UNORDERED})
    spec = planted.SPEC.model_copy(update={"contract": contract})
    users = pl.DataFrame({"user_id": planted.USERS})
    tables = {"actions": tied(planted.actions()), "items": planted.items(), "users": users}
    names = renaming(planted.items()["item_id"], seed=1)
    before = measured(tmp_path / "before", spec, tables, None)
    after = measured(tmp_path / "after", spec, tables, names)
    assert_within_noise(before, after)


@pytest.mark.scale
def test_renaming_all_products_of_completejourney_moves_no_metric(tmp_path):
    spec = load_dataset("completejourney")
    splits = Splits(
        burn_in=date(2017, 10, 2), validation=date(2017, 10, 23), test=date(2017, 10, 30), end=date(2017, 11, 6)
    )
    spec = spec.model_copy(update={"contract": spec.contract.model_copy(update={"splits": splits})})
    settings = Settings(home=tmp_path / "source", users_sample=0.15)
    lake = open_lake(settings, spec.name)
    interval = {"start": "2017-09-04", "stop": "2017-11-06"}
    landed = run_step(load_step("ingest"), lake=lake, settings=settings, spec=spec, params=interval)
    tables = {
        table: pl.read_parquet(lake.local_paths(landed.output(table)), missing_columns="insert")
        for table in ("actions", "items", "users")
    }
    # Some products that were bought are in no product table.
    everything = pl.concat([tables["items"]["item_id"], tables["actions"]["item_id"]])
    names = renaming(everything, seed=1)
    before = measured(tmp_path / "before", spec, tables, None)
    after = measured(tmp_path / "after", spec, tables, names)
    assert_within_noise(before, after)
