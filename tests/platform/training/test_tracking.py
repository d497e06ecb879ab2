"""The MLflow run of a training: one per step key, each value once, linked to the data."""

from datetime import UTC, datetime

import pytest

from pinloom.lake import Manifest
from pinloom.registry import Registry
from pinloom.settings import Settings
from pinloom.training.tracking import Tracker

DATA = Manifest(step="features", version=1, key="f", uri="file:///lake/f.json", created_at=datetime.now(UTC))


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return Registry(Settings(home=tmp_path_factory.mktemp("home"), mlflow_uri=None), "shop")


def _points(*steps):
    return [{"step": s, "epoch": 0, "train/loss": 1 / (s + 1), "validation/hit@3/buy": 0.5} for s in steps]


def _history(registry, run_id, name):
    return [(m.step, m.value) for m in registry.client.get_metric_history(run_id, name)]


def test_a_restarted_training_goes_on_in_its_run_and_repeats_nothing(registry):
    first = Tracker.open(registry, "k1", "one", {"lr": 0.1}, DATA)
    first.log(_points(0, 1, 2))
    first.end("FAILED")
    second = Tracker.open(registry, "k1", "one", {"lr": 0.1}, DATA)
    second.log(_points(1, 2, 3))
    second.end("FINISHED")
    assert second.run_id == first.run_id
    assert _history(registry, first.run_id, "train/loss") == [(s, 1 / (s + 1)) for s in range(4)]
    assert registry.client.get_run(first.run_id).info.status == "FINISHED"


def test_metric_names_that_mlflow_refuses_are_spelled_out(registry):
    tracker = Tracker.open(registry, "k2", "one", {}, DATA)
    tracker.log(_points(7))
    assert _history(registry, tracker.run_id, "validation/hit_at_3/buy") == [(7, 0.5)]


def test_the_run_names_the_manifest_that_it_learned_from(registry):
    tracker = Tracker.open(registry, "k3", "one", {"lr": 0.1, "layers": 2}, DATA)
    run = registry.client.get_run(tracker.run_id)
    assert run.data.params == {"lr": "0.1", "layers": "2"}
    assert run.data.tags["pinloom.features"] == DATA.uri
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == DATA.content_hash()
    assert DATA.uri in data.dataset.source


def test_artifacts_are_kept_with_the_run(registry, tmp_path):
    tracker = Tracker.open(registry, "k4", "one", {}, DATA)
    (tmp_path / "curves.jsonl").write_text("{}\n")
    tracker.artifacts(tmp_path / "curves.jsonl")
    assert [f.path for f in registry.client.list_artifacts(tracker.run_id)] == ["curves.jsonl"]
