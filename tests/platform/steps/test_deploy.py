"""`deploy` on a real Ray Serve: brought up, rolled over under traffic, rolled back, repaired."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
import yaml

from components.errors import UserError
from pinloom.lake import Manifest
from pinloom.ports import free_port
from pinloom.ray_cluster import Head
from pinloom.serving.client import ServeApi
from pinloom.serving.smoke import Endpoint
from pinloom.settings import RaySettings, ServingSettings, Settings
from pinloom.steps import landed
from tests.platform.serving import planted
from tests.platform.serving.asking import AT, CANDIDATES, action
from tests.platform.serving.world import KEY, World


def test_a_required_key_that_is_not_configured_stops_the_step_before_anything_is_served(world):
    keyless = replace(world, settings=Settings(home=world.settings.home))
    with pytest.raises(UserError, match="PINLOOM_SERVING__API_KEY"):
        keyless.step("deploy", champion=world.champion, online=world.online)
    assert world.lake.latest("serving") is None


def test_a_ray_that_does_not_answer_is_named(world):
    settings = world.settings.model_copy(update={"ray": RaySettings(jobs_url=f"http://127.0.0.1:{free_port()}")})
    with pytest.raises(UserError, match=r"Ray does not answer at http://127.0.0.1:\d+"):
        replace(world, settings=settings).step("deploy", champion=world.champion, online=world.online)
    assert world.lake.latest("serving") is None


@dataclass
class Served:
    """The planted world on the session's Ray."""

    world: World
    api: ServeApi

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.api.base_url("/"), self.world.settings.serving)

    def deploy(self, champion=None, **inputs: Manifest) -> Manifest:
        given = {"champion": champion or self.world.champion, "online": self.world.online, **inputs}
        return self.world.step("deploy", **given)

    def model(self) -> str:
        return self.said()["key"]

    def said(self) -> dict[str, Any]:
        (model,) = self.endpoint.call("GET", "/v1/models")
        return model


@pytest.fixture(scope="module")
def served(world, ray_cluster: Head, tmp_path_factory) -> Iterator[Served]:
    """A deployment with two replicas over an online store of its own; Serve is taken down afterwards."""
    settings = Settings(
        home=tmp_path_factory.mktemp("served"),
        lake=world.lake.root,
        serving=ServingSettings(api_key=KEY, port=free_port(), min_replicas=2, max_replicas=3, cpus_per_replica=0.25),
        ray=RaySettings(jobs_url=ray_cluster.jobs_url, token=ray_cluster.token),
    )
    served = Served(replace(world, settings=settings), ServeApi(settings.ray))
    served.world.step("materialize", features=world.features)
    try:
        served.deploy()
        yield served
    finally:
        served.api._call("DELETE")


@pytest.mark.cluster
def test_the_deployment_answers_and_is_written_down(served):
    manifest = served.world.lake.require("serving")
    config = yaml.safe_load(served.world.lake.read_bytes(manifest.file("deployment", "serve.yaml")))
    app = served.api.application("planted")
    assert app["deployed_app_config"]["args"] == config["applications"][0]["args"]
    scaling = app["deployments"]["Gateway"]["deployment_config"]["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"], scaling["target_ongoing_requests"]) == (2, 3, 8.0)
    assert served.model() == served.world.champion.key
    assert requests.get(served.endpoint.url + "/v1/models", timeout=10).status_code == 401


@pytest.mark.cluster
def test_fifty_concurrent_posts_for_one_user_to_two_replicas_keep_fifty(served):
    moment = datetime(2026, 2, 20, tzinfo=UTC)
    rows = [
        action(f"e{i}", "felt-1", "poster", timestamp=(moment + timedelta(seconds=i)).isoformat()) for i in range(50)
    ]
    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda row: served.endpoint.call("POST", "/v1/actions", [row]), rows))
    assert sum(a["new_in_history"] for a in answers) == 50
    assert len(served.endpoint.call("GET", "/v1/users/poster?limit=500")["actions"]) == 50
    found = landed.read(served.world.lake, moment.date(), moment.date() + timedelta(days=1), 1.0)
    assert sorted(e for rows in found for e in rows["event_id"]) == sorted(r["event_id"] for r in rows)


@pytest.mark.cluster
def test_a_redeployment_rolls_over_without_a_failed_request(served, tmp_path):
    other = planted.train(served.world.lake, served.world.features, tmp_path, seed=1, key="run-1")
    with traffic(served.endpoint) as answers:
        served.deploy(other)
    assert set(answers) == {(200, served.world.champion.key), (200, "run-1")}
    assert served.model() == "run-1"


@pytest.mark.cluster
def test_vectors_are_promoted_under_traffic_without_a_failed_request(served, index, tmp_path):
    """New vectors come online beside those that are read; then a ranker trained on them takes over."""
    world, before = served.world, served.said()
    embedded = world.lake.manifest(index.inputs["embed"]["uri"])
    reader = planted.train(world.lake, embedded, tmp_path, seed=3, key="on-pinsage")
    with traffic(served.endpoint) as answers:
        online = world.step("materialize", features=embedded)
        assert served.said() == before
        served.deploy(reader, online=online, index=index)
    assert set(answers) == {(200, before["key"]), (200, "on-pinsage")}
    assert served.said()["vectors"] == embedded.metrics["vectors"] != before["vectors"]
    related = served.endpoint.call("GET", "/v1/items/wool-3/related?k=5")
    assert (related["vectors"], len(related["related"])) == (embedded.metrics["vectors"], 5)


@pytest.mark.cluster
def test_a_broken_artifact_says_why_and_the_previous_deployment_keeps_serving(served, tmp_path):
    champion = planted.train(served.world.lake, served.world.features, tmp_path, seed=2, key="cut")
    before = served.model()
    weights = served.world.lake.local_path(champion.file("artifact", "model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    pointer = served.world.lake.require("serving").uri
    with traffic(served.endpoint) as answers, pytest.raises(UserError, match=r"cut\.json cannot be loaded") as caught:
        served.deploy(champion)
    assert "previous deployment" in caught.value.remedy
    assert set(answers) == {(200, before)}
    assert served.model() == before
    assert served.world.lake.require("serving").uri == pointer


@pytest.mark.cluster
def test_an_application_that_is_gone_is_deployed_again_though_the_manifest_exists(served):
    first = served.deploy()
    (app,) = served.api.details()["applications"].values()
    served.api.remove({"applications": [app["deployed_app_config"]]})
    wait_until(lambda: served.api.application("planted") is None)
    assert served.deploy().uri == first.uri
    assert served.model() == served.world.champion.key


@pytest.mark.cluster
def test_prometheus_finds_requests_and_candidates(served):
    served.endpoint.call("POST", "/v1/rank", {"user_id": "nobody", "candidates": [*CANDIDATES, "never-heard-of"]})
    url = served.endpoint.url + "/metrics"
    wanted = (
        "ray_pinloom_requests_total{",
        'path="/v1/rank"',
        "ray_pinloom_request_seconds_bucket",
        "ray_pinloom_candidates_bucket",
        "ray_pinloom_unknown_users_total",
        "ray_pinloom_unknown_items_total",
    )
    wait_until(lambda: all(w in requests.get(url, timeout=10).text for w in wanted))


PACE_S = 0.05
"""Between two questions: traffic, not load; the new replicas start on the same cores."""


@contextmanager
def traffic(endpoint: Endpoint) -> Iterator[Counter[tuple[int, str]]]:
    """Rankings all the while, counted by status and answering model."""
    answers: Counter[tuple[int, str]] = Counter()
    stop = threading.Event()
    body = {"user_id": "user-0", "candidates": CANDIDATES, "at": AT}

    def ask() -> None:
        while not stop.wait(PACE_S):
            answer = requests.post(endpoint.url + "/v1/rank", json=body, headers={"X-API-Key": KEY}, timeout=30)
            answers[answer.status_code, answer.json().get("model", answer.text)] += 1

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield answers
        finally:
            stop.set()
            asking.result()


def wait_until(holds, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.2)
