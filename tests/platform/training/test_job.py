"""What travels to the workers, and what a run leaves for people."""

import json
import logging
import pickle

import pytest

from components.errors import UserError
from pinloom.lake import Lake, Manifest
from pinloom.training.curves import write_curves
from pinloom.training.job import LakeTables, RecipeJob
from pinloom.training.progress import Progress
from pinloom.training.storage import Storage
from tests.platform.training.planted import CONTRACT, PlantedRecipe, publish_features

CURVE = [
    {"step": 1, "epoch": 0, "train/loss": 0.9},
    {"step": 2, "epoch": 0, "train/loss": 0.7},
    {"step": 2, "epoch": 0, "validation/loss": 0.8, "validation/accuracy": 0.6},
]


@pytest.fixture
def lake(tmp_path):
    return Lake(f"file://{tmp_path}/lake")


@pytest.fixture
def features(lake) -> Manifest:
    return publish_features(lake, rows=256)


def test_tables_are_named_by_output_and_partition_and_fetched_when_asked_for(lake, features):
    tables = LakeTables(lake.root, features)
    assert set(tables) == {"schema", "examples", "examples/train", "examples/validation"}
    assert tables["examples"] == tables["examples/train"] + tables["examples/validation"]
    assert tables.get("histories") is None


def test_a_job_survives_the_journey_to_a_worker_and_makes_its_recipe_there(lake, features):
    job = RecipeJob(PlantedRecipe, CONTRACT, features, lake.root, overrides={"lr": 0.5}, seed=3)
    recipe = pickle.loads(pickle.dumps(job))()
    assert (recipe.config.lr, recipe.inputs.seed, recipe.inputs.vectors) == (0.5, 3, "planted-vectors")
    assert recipe.inputs.feature_service == "planted_v1"
    assert len(recipe.inputs.files("examples/train")) == 1


def test_a_hyper_parameter_that_the_recipe_does_not_have_is_answered_with_those_it_has(lake, features):
    with pytest.raises(UserError, match="has no field learning_rate") as e:
        RecipeJob(PlantedRecipe, CONTRACT, features, lake.root, overrides={"learning_rate": 1})()
    assert "lr" in e.value.remedy


def test_curves_are_written_for_machines_and_for_people(tmp_path):
    lines, picture = write_curves(CURVE, tmp_path)
    assert [json.loads(line) for line in lines.read_text().splitlines()] == CURVE
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_progress_in_a_log_is_a_line_now_and_then_and_one_for_every_validation(caplog):
    progress = Progress("train planted", every_s=3600)
    with caplog.at_level(logging.INFO, "pinloom.training"):
        for point in CURVE:
            progress.show(point, total_steps=4)
    progress.close()
    assert len(caplog.messages) == 2
    assert "train planted" in caplog.messages[0]
    assert "2/4" in caplog.messages[1]
    assert "validation/loss=0.8" in caplog.messages[1]


def test_a_runs_checkpoints_are_dropped_alone_and_twice_is_once(tmp_path):
    storage = Storage(str(tmp_path))
    for name in ("one", "two"):
        (tmp_path / name / "checkpoint").mkdir(parents=True)
    storage.remove("one")
    storage.remove("one")
    assert [p.name for p in tmp_path.iterdir()] == ["two"]


def test_an_object_store_keeps_checkpoints_beside_the_lake():
    storage = Storage.beside(Lake("memory://bucket/shop"), settings=None)
    assert storage.path.endswith("bucket/shop/ray_results")
    with storage.filesystem.open_output_stream(f"{storage.path}/run/a") as f:
        f.write(b"1")
    storage.remove("run")
    assert not Lake("memory://bucket/shop").exists("memory://bucket/shop/ray_results/run/a")
