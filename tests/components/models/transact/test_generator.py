"""The generator's log through features and training: what its users hide sinks."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml

from components.contract import ACTIONS, ITEMS, bucket_expr
from components.generator import Catalogue, People, World, simulate
from components.models.ranker import RankerArtifact, collate, load_ranker
from components.models.ranker.data import COLUMNS
from components.models.source import in_order
from components.recipe import Rank, load_recipe
from pinloom.datasets.spec import DatasetSpec
from pinloom.datasets.synthetic import _yaml
from pinloom.lake import Lake, Manifest
from pinloom.settings import Settings
from pinloom.steps.base import load_step, run_step
from pinloom.training.job import RecipeJob
from pinloom.training.local import run_local

WORLD = World(actions=40_000, seed=3)
SPEC = DatasetSpec.model_validate(yaml.safe_load(_yaml(WORLD, "generated")))


def moment(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC").cast(pl.Datetime("us", "UTC"))


def publish(lake: Lake, log: pl.DataFrame, items: pl.DataFrame) -> Manifest:
    """Point `actions` at the log, laid out as `validate` would."""
    actions = log.rename({"user": "user_id", "item": "item_id", "session": "session_id", "request": "request_id"})
    actions = actions.with_columns(
        moment("time_ms").alias("timestamp"), event_id=pl.int_range(pl.len()).cast(pl.String)
    )
    actions = actions.with_columns(value=pl.lit(None, pl.Float64), sampling_probability=pl.lit(None, pl.Float64))
    actions = actions.select(list(ACTIONS)).with_columns(bucket_expr(actions["user_id"], SPEC.contract.buckets))
    table = items.select(
        item_id="item",
        created_at=moment("created_ms"),
        created_at_inferred=pl.lit(False),
        category="topic",
        title="title",
    ).select(list(ITEMS))
    described = {f"features.{name}": items[name] for name in ("topic", "style", "quality")}
    frames = {
        "actions": actions.sort("bucket", "user_id", "timestamp", maintain_order=True),
        "items": table.with_columns(**described),
        "users": actions.select("user_id").unique().sort("user_id"),
    }
    outputs = {name: lake.writer("table", "0", name, "0") for name in frames}
    for (day,), rows in frames["actions"].group_by(pl.col("timestamp").dt.date(), maintain_order=True):
        outputs["actions"].parquet(f"{day}.parquet", rows, partition=str(day), row_group_size=5_000)
    for name in ("items", "users"):
        outputs[name].parquet(f"{name}.parquet", frames[name])
    published = lake.publish(
        Manifest(
            step="table/actions",
            version=1,
            key="0",
            created_at=datetime.now(UTC),
            outputs={name: writer.output() for name, writer in outputs.items()},
        )
    )
    return lake.advance("actions", lambda _: published)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Lake, Manifest, Path]:
    folder = tmp_path_factory.mktemp("generated")
    lake, catalogue = Lake(f"file://{folder}/lake"), Catalogue(WORLD)
    publish(lake, simulate(WORLD, catalogue, People(WORLD, 0), 0), catalogue.frame())
    features = run_step(load_step("features"), lake=lake, settings=Settings(home=folder), spec=SPEC)
    return lake, features, folder


@pytest.fixture(scope="module")
def trained(study) -> tuple[RankerArtifact, RecipeJob]:
    lake, features, folder = study
    job = RecipeJob(
        recipe=load_recipe("transact"),
        contract=SPEC.contract,
        features=features,
        lake_root=lake.root,
        flavour="debug",
    )
    run_local(job(), folder / "run")
    return load_ranker(folder / "run" / "checkpoint" / "artifact"), job


def percentile(artifact: RankerArtifact, job: RecipeJob, planted: dict[str, set[str]]) -> float:
    """Mean place (0 first, 1 last) of items of a user's planted topics among the request's candidates."""
    recipe = job()
    topic = recipe.items.category
    total = weight = 0.0
    for rows in in_order(recipe.inputs.files("examples/validation"), list(COLUMNS), batch=64, rank=Rank()):
        batch = collate(rows, recipe.items, recipe.schema, sequence_length=artifact.config.sequence_length)
        _, score = artifact.score(batch)
        begin = 0
        for row in rows.to_pylist():
            n = len(row["candidate_item"])
            place = torch.argsort(torch.argsort(-score[begin : begin + n])) / (n - 1)
            meant = torch.tensor([topic[i] in planted[row["user_id"]] for i in row["candidate_item"]])
            total, weight, begin = total + float(place[meant].sum()), weight + float(meant.sum()), begin + n
    return total / weight


def test_topics_that_a_user_dislikes_sink(trained):
    people = People(WORLD, 0).frame()
    disliked, liked = ({r["user"]: set(r[c]) for r in people.iter_rows(named=True)} for c in ("dislikes", "tastes"))
    assert percentile(*trained, disliked) > 0.6 > 0.5 > percentile(*trained, liked)
