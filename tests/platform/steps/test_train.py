"""`train`: an artifact, its curves, one MLflow run and one version, whatever happens on the way."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from components.errors import UserError
from components.models.transact.config import TransActConfig
from components.models.transact.recipe import TransActRecipe
from pinloom.datasets import DatasetSpec, load_dataset
from pinloom.lake import Lake, Manifest
from pinloom.ports import free_port
from pinloom.ray_cluster import Head
from pinloom.registry import Registry
from pinloom.settings import Settings
from pinloom.steps import train
from pinloom.steps.base import run_step
from pinloom.steps.job import open_lake
from pinloom.training.distributed import Points, Trained
from pinloom.training.tracking import Tracker
from tests.platform.training.ranking import publish_features, write_dataset

PARAMS = {"recipe": "transact", "flavour": "debug", "overrides": {"epochs": 1}}
JOB_DEADLINE_S = 600


@dataclass
class Place:
    """A home with a lake that has features."""

    settings: Settings
    spec: DatasetSpec
    lake: Lake

    @property
    def registry(self) -> Registry:
        return Registry(self.settings, self.spec.name)

    def runs(self) -> list[Any]:
        return list(self.registry.client.search_runs([self.registry.experiment_id]))

    def train(self, **changed: Any) -> Manifest:
        return run_step(
            train.STEP, lake=self.lake, settings=self.settings, spec=self.spec, params={**PARAMS, **changed}
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    home = tmp_path_factory.mktemp("train")
    settings = Settings(home=home, dataset=str(write_dataset(home)), mlflow_uri=None)
    spec = load_dataset(settings.dataset)
    lake = open_lake(settings, spec.name)
    publish_features(lake, home)
    return Place(settings, spec, lake)


def test_an_unknown_recipe_is_answered_with_those_that_exist_before_anything_starts(place):
    with pytest.raises(UserError, match="no recipe 'transakt'") as e:
        place.train(recipe="transakt")
    assert "transact" in e.value.remedy


def test_an_unknown_hyper_parameter_is_answered_with_those_that_exist_before_anything_starts(place):
    with pytest.raises(UserError, match="has no field depth") as e:
        place.train(overrides={"depth": 3})
    assert "epochs" in e.value.remedy


def test_a_tracking_server_that_does_not_answer_is_told_before_anything_starts(place):
    settings = place.settings.model_copy(update={"mlflow_uri": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(UserError, match="no MLflow server answers"):
        replace(place, settings=settings).train()


def test_other_defaults_of_a_recipe_are_another_training(place, monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class Later(TransActConfig):
        epochs: int = TransActConfig().epochs + 1

    keyed = replace(train.STEP, run=lambda _: None, commit=None, advances="")

    def key(**overrides: Any) -> str:
        params = {"recipe": "transact", "overrides": overrides}
        return run_step(keyed, lake=place.lake, settings=place.settings, spec=place.spec, params=params).key

    before = key()
    assert key(epochs=TransActConfig().epochs) == before, "to say a default changes nothing"
    monkeypatch.setattr(TransActRecipe, "config_type", Later)
    assert key() != before
    assert key(epochs=TransActConfig().epochs) == before


POINT = {"epoch": 0, "step": 1, "train/loss": 0.5}


@pytest.mark.parametrize("points", [[], [(POINT, 10)]], ids=["before the first point", "after it"])
def test_what_made_a_training_fail_is_told_even_if_mlflow_fails_too(place, tmp_path, monkeypatch, caplog, points):
    def fails(*_: Any, watch: Callable[[Points], None], **__: Any) -> Trained:
        if points:
            watch(points)
        raise UserError("the loss is not finite", "lower the learning rate")

    def gone(*_: Any) -> None:
        raise OSError("MLflow went away")

    monkeypatch.setattr(train, "connect", lambda _: None)
    monkeypatch.setattr(train, "run_distributed", fails)
    monkeypatch.setattr(Tracker, "end" if points else "open", gone)
    elsewhere = replace(place, settings=place.settings.model_copy(update={"home": tmp_path}))
    with pytest.raises(UserError, match="not finite"):
        elsewhere.train()
    assert ("could not be marked as failed" in caplog.text) == bool(points)


@contextmanager
def two_replicas(ray_cluster: Head) -> Iterator[Any]:
    """A small application with two replicas; yields its handle. Serve goes again unless somebody had started it."""
    import ray
    from ray import serve

    @serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.5})
    class Echo:
        def __call__(self, x: int) -> int:
            return x

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        running = True
    except ValueError:
        running = False
        serve.start(proxy_location="Disabled")
    try:
        yield serve.run(Echo.bind(), name="beside-training", route_prefix=None)
    finally:
        serve.delete("beside-training")
        if not running:
            serve.shutdown()


@dataclass
class Story:
    """A training that crashed when it was done, and its retry as Airflow starts it: a Ray job, beside serving."""

    status_after_crash: str
    steps_before: int
    manifest: Manifest
    logs: str
    answers: list[int]


def run_job(ray_cluster: Head, place: Place) -> tuple[dict[str, Any], str]:
    """Submit `pinloom step train` through the Jobs API; returns its result and its logs."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(ray_cluster.jobs_url, headers={"Authorization": f"Bearer {ray_cluster.token}"})
    params = " ".join(f"--param '{k}={json.dumps(v) if isinstance(v, dict) else v}'" for k, v in PARAMS.items())
    result = place.lake.path("results", "job.json")
    job = client.submit_job(
        entrypoint=f"{sys.executable} -m pinloom.cli step train {params} --result {result}",
        runtime_env={"env_vars": {"PINLOOM_HOME": str(place.settings.home), "PINLOOM_DATASET": place.settings.dataset}},
    )
    deadline = time.monotonic() + JOB_DEADLINE_S
    while not client.get_job_status(job).is_terminal() and time.monotonic() < deadline:
        time.sleep(0.5)
    logs = client.get_job_logs(job)
    assert client.get_job_status(job).value == "SUCCEEDED", logs[-3000:]
    return json.loads(place.lake.read_bytes(result)), logs


@pytest.fixture(scope="module")
def story(ray_cluster: Head, place: Place) -> Story:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "write_curves", full)
        with pytest.raises(OSError, match="no space"):
            place.train()
    (crashed,) = place.runs()
    with two_replicas(ray_cluster) as echo:
        before = [echo.remote(i).result(timeout_s=60) for i in range(4)]
        result, logs = run_job(ray_cluster, place)
        after = [echo.remote(i).result(timeout_s=60) for i in range(4)]
    return Story(
        status_after_crash=crashed.info.status,
        steps_before=_newest_step(place, crashed.info.run_id),
        manifest=place.lake.manifest(result["manifests"]["train"]),
        logs=logs,
        answers=before + after,
    )


def _newest_step(place: Place, run_id: str) -> int:
    return max(m.step for m in place.registry.client.get_metric_history(run_id, "train/loss"))


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_training_starts_in_a_ray_job_while_two_replicas_serve(story):
    assert story.answers == [0, 1, 2, 3] * 2


@pytest.mark.cluster
def test_a_retry_resumes_what_was_trained_and_makes_no_second_run(story, place):
    (run,) = place.runs()
    assert story.status_after_crash == "FAILED"
    assert run.info.status == "FINISHED"
    assert story.manifest.metrics["steps"] == story.steps_before
    history = [m.step for m in place.registry.client.get_metric_history(run.info.run_id, "train/loss")]
    assert history == sorted(set(history))


@pytest.mark.cluster
def test_the_manifest_holds_artifact_curves_and_measures(story, place):
    names = {name: [u.rsplit("/", 1)[-1] for u in o.uris] for name, o in story.manifest.outputs.items()}
    assert {"model.safetensors", "artifact.json"} <= set(names["artifact"])
    assert names["curves"] == ["curves.jsonl", "curves.png"]
    points = [json.loads(p) for p in place.lake.read_bytes(story.manifest.file("curves", "curves.jsonl")).splitlines()]
    losses = [p["validation/loss"] for p in points if "validation/loss" in p]
    assert story.manifest.metrics["best"] == min(losses)
    assert 0 <= story.manifest.metrics["data_wait_share"] < 1
    assert story.manifest.metrics["startup_s"] > 0
    artifact = json.loads(place.lake.read_bytes(story.manifest.file("artifact", "artifact.json")))
    assert artifact["recipe"] == "transact"


@pytest.mark.cluster
def test_the_run_has_parameters_curves_and_the_data_that_it_learned_from(story, place):
    (run,) = place.runs()
    assert run.data.params["flavour"] == "debug"
    assert run.data.params["epochs"] == "1"
    assert "validation/hit_at_3" in run.data.metrics
    files = {f.path for f in place.registry.client.list_artifacts(run.info.run_id)}
    assert files == {"artifact.json", "curves.jsonl", "curves.png"}
    assert run.inputs.dataset_inputs[0].dataset.digest == place.lake.require("features").content_hash()


@pytest.mark.cluster
def test_the_artifact_is_a_version_and_running_again_adds_none(story, place):
    again = place.train()
    assert again.uri == story.manifest.uri
    (version,) = place.registry.versions("transact")
    assert (version.manifest, version.key) == (story.manifest.uri, story.manifest.key)
    assert place.registry.manifest_uri("transact", version.number) == story.manifest.uri
    assert place.lake.require("runs/transact").uri == story.manifest.uri


@pytest.mark.cluster
def test_the_jobs_log_shows_progress(story):
    assert "train transact: 100%" in story.logs


@pytest.mark.cluster
def test_checkpoints_go_when_the_artifact_is_published(story, place):
    assert not list((place.settings.home / "ray_results").glob("transact-*"))
