"""Deploying through a RayService: what is written, what is waited for, what is rolled back."""

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import Thread

import pytest
import uvicorn
import yaml
from fastapi import FastAPI

from components.errors import UserError
from pinloom.serving import rayservice
from pinloom.serving.client import DeployFailed
from pinloom.serving.config import AppArgs
from pinloom.serving.gateway import create_app
from pinloom.serving.rayservice import RayServiceApi
from pinloom.serving.service import RankingService
from pinloom.settings import KubernetesSettings, ServingSettings, Settings
from tests.kubernetes_api import NAMESPACE, KubernetesApi, Object, kubernetes_api, token_file
from tests.platform.serving import planted
from tests.platform.serving.world import KEY, World

NAME = "rec"
OPTIONS = {"proxy_location": "EveryNode", "http_options": {"host": "0.0.0.0", "port": 8000}}
OTHER = {"name": "other", "route_prefix": "/other"}
MINE = {**OPTIONS, "applications": [{"name": "mine", "route_prefix": "/", "args": {"deployment": "new"}}]}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(rayservice, "POLL_S", 0.05)
    monkeypatch.setattr(rayservice, "STALE_S", 0.0)


@pytest.fixture
def cluster() -> Iterator[KubernetesApi]:
    with kubernetes_api() as server:
        config = {**OPTIONS, "http_options": {"host": "0.0.0.0", "port": 9000}, "applications": [OTHER]}
        server.objects["rayservices", NAME] = {
            "metadata": {"name": NAME, "generation": 1, "resourceVersion": "1"},
            "spec": {"serveConfigV2": yaml.safe_dump(config), "rayClusterConfig": {"rayVersion": "2.60.0"}},
            "status": status(1, {}),
        }
        yield server


@pytest.fixture
def settings(cluster, tmp_path) -> Settings:
    token = token_file(tmp_path)
    kubernetes = KubernetesSettings(
        url=f"http://{cluster.address}", namespace=NAMESPACE, token_file=token, rayservice=NAME
    )
    return Settings(kubernetes=kubernetes)


def status(generation: int, applications: dict, pending: dict | None = None) -> Object:
    """Of a RayService, as `rayservice_controller.go` writes it."""
    active = {"rayClusterName": "rec-abcde", "applicationStatuses": applications} if pending is None else {}
    later = {"rayClusterName": "rec-fghij", "applicationStatuses": pending} if pending else {}
    return {"observedGeneration": generation, "activeServiceStatus": active, "pendingServiceStatus": later}


def running(message: str = "", state: str = "RUNNING") -> Object:
    deployments = {"Gateway": {"status": "HEALTHY" if state == "RUNNING" else "UNHEALTHY", "message": message}}
    return {"status": state, "message": "", "serveDeploymentStatuses": deployments}


def config(cluster: KubernetesApi) -> Object:
    return yaml.safe_load(cluster.objects["rayservices", NAME]["spec"]["serveConfigV2"])


def test_one_application_is_put_among_the_others_and_taken_out_again(cluster, settings):
    api = RayServiceApi(settings)
    api.put(MINE)
    assert config(cluster)["applications"] == [OTHER, *MINE["applications"]]
    assert config(cluster)["http_options"]["port"] == 9000
    assert cluster.objects["rayservices", NAME]["spec"]["rayClusterConfig"] == {"rayVersion": "2.60.0"}
    api.remove(MINE)
    assert config(cluster)["applications"] == [OTHER]


def test_a_taken_route_is_refused_before_anything_is_written(cluster, settings):
    clashing = {**OPTIONS, "applications": [{"name": "mine", "route_prefix": "/other"}]}
    with pytest.raises(UserError, match="'other' is served under '/other' already"):
        RayServiceApi(settings).put(clashing)
    assert config(cluster)["applications"] == [OTHER]


def test_somebody_elses_change_in_between_is_not_lost(cluster, settings):
    cluster.conflicts = 3
    RayServiceApi(settings).put(MINE)
    assert config(cluster)["applications"] == [OTHER, *MINE["applications"]]
    cluster.conflicts = 100
    with pytest.raises(DeployFailed, match="changed by others"):
        RayServiceApi(settings).remove(MINE)


def test_a_status_older_than_the_change_is_not_believed(cluster, settings):
    api = RayServiceApi(settings)
    api.put(MINE)
    seen = [
        status(1, {"mine": running()}),
        status(2, {"mine": running(state="DEPLOYING")}),
        status(2, {"mine": running()}),
    ]
    cluster.statuses[NAME] = seen
    api.wait("mine", 30)
    assert len(seen) == 1


@pytest.mark.parametrize("old", ["RUNNING", "DEPLOY_FAILED"])
def test_the_old_applications_state_under_the_new_generation_is_not_believed(cluster, settings, monkeypatch, old):
    """KubeRay asks Serve before it hands a change on, and writes both answers in the same round."""
    monkeypatch.setattr(rayservice, "STALE_S", 0.5)
    api = RayServiceApi(settings)
    api.put(MINE)
    seen = [
        *[status(2, {"mine": running(state=old)})] * 3,
        *[status(2, {"mine": running(state="DEPLOYING")})] * 20,
        status(2, {"mine": running()}),
    ]
    cluster.statuses[NAME] = seen
    api.wait("mine", 30)
    assert len(seen) == 1


def test_a_cluster_that_no_service_points_to_does_not_serve_yet(cluster, settings):
    cluster.statuses[NAME] = [status(1, {}, {"mine": running()})]
    with pytest.raises(DeployFailed, match="not running after"):
        RayServiceApi(settings).wait("mine", 0.5)


def test_what_the_replica_said_is_the_reason(cluster, settings):
    said = "Traceback …\ncomponents.errors.UserError: model.json cannot be loaded\n  remedy: train again"
    cluster.statuses[NAME] = [status(1, {"mine": running(said, "DEPLOY_FAILED")})]
    with pytest.raises(DeployFailed, match=r"^model\.json cannot be loaded\n  remedy: train again$"):
        RayServiceApi(settings).wait("mine", 5)


def test_a_missing_rayservice_missing_rights_and_no_cluster_are_told_apart(cluster, settings, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("another")
    with pytest.raises(UserError, match="forbidden") as caught:
        RayServiceApi(settings).put(MINE)
    assert "get and patch on rayservices/rec" in caught.value.remedy
    token_file(tmp_path)
    del cluster.objects["rayservices", NAME]
    with pytest.raises(UserError, match="there is no RayService rec in namespace ml"):
        RayServiceApi(settings).put(MINE)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UserError, match="this is no pod"):
        RayServiceApi(Settings(kubernetes=KubernetesSettings(rayservice=NAME)))


@dataclass
class Replica:
    """Serve's part: the real application of a configuration, at one address; and KubeRay's word on it."""

    app: FastAPI

    async def __call__(self, scope, receive, send) -> None:
        await self.app(scope, receive, send)

    def follow(self, patched: Object) -> None:
        generation = patched["metadata"]["generation"]
        applications = yaml.safe_load(patched["spec"]["serveConfigV2"])["applications"]
        args = next((AppArgs(**app["args"]) for app in applications if app["name"] == "planted"), None)
        try:
            self.app = create_app(RankingService.load(args), args.key_sha256) if args else FastAPI()
            state = running()
        except UserError as e:
            state = running(f"components.errors.UserError: {e}", "DEPLOY_FAILED")
        patched["status"] = status(generation, {"planted": state} if args else {})


@pytest.fixture
def deploying(world: World, cluster, settings, tmp_path) -> Iterator[World]:
    """The planted world, with a cluster to deploy to."""
    replica = Replica(FastAPI())
    cluster.controller = replica.follow
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(replica, log_level="warning", lifespan="off"))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        own = Settings(
            home=tmp_path,
            lake=world.lake.root,
            serving=ServingSettings(api_key=KEY),
            kubernetes=settings.kubernetes.model_copy(update={"serving_url": url}),
        )
        fresh = replace(world, settings=own)
        fresh.step("materialize", features=world.features)
        yield fresh
        server.should_exit = True
        thread.join()
        # The lake is the session's, and other tests begin where nothing is served and the champion is the first.
        shutil.rmtree(world.lake.local_path(world.lake.path("pointers", "serving")))
        world.lake.advance("champions/transact", lambda _: world.champion)


def test_the_deploy_step_brings_up_tests_and_rolls_back(deploying, cluster, tmp_path):
    first = deploying.step("deploy", champion=deploying.champion, online=deploying.online)
    assert [app["name"] for app in config(cluster)["applications"]] == ["other", "planted"]
    assert deploying.lake.require("serving").uri == first.uri
    broken = planted.train(deploying.lake, deploying.features, tmp_path, seed=3, key="broken-on-kubernetes")
    deploying.lake.local_path(broken.file("artifact", "model.safetensors")).write_bytes(b"")
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        deploying.step("deploy", champion=broken, online=deploying.online)
    assert f"the previous deployment {first.key} serves again" in caught.value.remedy
    assert config(cluster)["applications"][1]["args"]["deployment"] == first.key
