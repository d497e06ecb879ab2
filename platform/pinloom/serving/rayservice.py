"""Serving on Kubernetes: the application is part of a RayService, KubeRay hands it to Ray Serve.

The same talk as with Ray's own API (`pinloom.serving.client`): put one application among the others, wait for it, take
it down. Only `serveConfigV2` is changed, so the cluster stays and the application rolls over in place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import yaml

from components.errors import UserError
from pinloom.kube import KubeApi, KubeError
from pinloom.serving.client import DeployFailed, check_free, reason
from pinloom.settings import Settings

POLL_S = 1.0
STALE_S = 10.0
"""How long after KubeRay has seen a change its word on the application may be the old one: in each round of 2 s it asks
Serve first and hands the change on then (`rayservice_controller.go`, `reconcileServe`)."""
ATTEMPTS = 10
"""Writes of a RayService that somebody else changes at the same moment."""

Applications = list[dict[str, Any]]


class RayServiceApi:
    """One RayService.

    Attributes:
        timeout_s: for an application to come up; the cluster may first need a pod for it, and a node for the pod.
        settle_s: how long another deployment may still answer after `wait`.

    Raises:
        UserError: no cluster to ask.
    """

    timeout_s = 900.0
    # KubeRay's look at Serve may be older still, and services follow their pods with a delay.
    settle_s = 180.0

    def __init__(self, settings: Settings) -> None:
        self.name = settings.kubernetes.rayservice
        self._url, self._port = settings.kubernetes.serving_url, settings.serving.port
        try:
            self._api = KubeApi(settings.kubernetes)
        except KubeError as e:
            raise UserError(str(e), "run the step in the cluster, or unset PINLOOM_KUBERNETES__RAYSERVICE") from e
        self._path = self._api.ray("rayservices", self.name)
        self._generation = 0

    def base_url(self, prefix: str) -> str:
        """KubeRay's service of the pods whose proxy is healthy, unless the settings name another way in."""
        own = f"http://{self.name}-serve-svc.{self._api.namespace}.svc:{self._port}"
        return (self._url or own).rstrip("/") + prefix.rstrip("/")

    def put(self, config: dict[str, Any]) -> None:
        """Set the one application of `config` and leave the others as they are.

        Raises:
            UserError: another application has its route prefix, or the RayService cannot be changed.
        """
        (mine,) = config["applications"]

        def replaced(applications: Applications) -> Applications:
            others = [app for app in applications if app["name"] != mine["name"]]
            check_free(others, mine)
            return [*others, mine]

        self._change(replaced, config)

    def remove(self, config: dict[str, Any]) -> None:
        (mine,) = config["applications"]
        self._change(lambda applications: [app for app in applications if app["name"] != mine["name"]], config)

    def wait(self, name: str, timeout_s: float) -> None:
        """Until KubeRay has seen the change and every replica of the application is at it.

        Raises:
            DeployFailed: it did not get there; the old replicas, if any, still serve.
        """
        deadline = time.monotonic() + timeout_s
        believed = deadline
        app: dict[str, Any] = {}
        while time.monotonic() < deadline:
            service = self._service()
            if service.get("status", {}).get("observedGeneration", 0) >= self._generation:
                believed = min(believed, time.monotonic() + STALE_S)
            if time.monotonic() >= believed:
                app = _application(service, name)
                if app.get("status") == "RUNNING":
                    return
                if app.get("status") == "DEPLOY_FAILED":
                    raise DeployFailed(reason(app))
            time.sleep(POLL_S)
        raise DeployFailed(f"not running after {timeout_s:.0f} s: {reason(app)}")

    def _service(self) -> dict[str, Any]:
        with self._words():
            service = self._api.get(self._path)
        if service is None:
            raise UserError(
                f"there is no RayService {self.name} in namespace {self._api.namespace}",
                "install the chart with serving.enabled, or set PINLOOM_KUBERNETES__RAYSERVICE",
            )
        found: dict[str, Any] = service
        return found

    def _change(self, change: Callable[[Applications], Applications], config: dict[str, Any]) -> None:
        """Read, change, write; again when somebody else wrote in between."""
        for _ in range(ATTEMPTS):
            service = self._service()
            old = yaml.safe_load(service["spec"].get("serveConfigV2") or "") or {}
            # Options of the proxies hold from Serve's start: those of the first deployment stay.
            new = {**config, **old, "applications": change(old.get("applications") or [])}
            if new == old:
                self._generation = service["metadata"]["generation"]
                return
            body = {
                "metadata": {"resourceVersion": service["metadata"]["resourceVersion"]},
                "spec": {"serveConfigV2": yaml.safe_dump(new, sort_keys=False)},
            }
            with self._words():
                try:
                    patched = self._api.patch(self._path, body)
                except KubeError as e:
                    if e.status == HTTPStatus.CONFLICT:
                        continue
                    raise
            self._generation = patched["metadata"]["generation"]
            return
        raise DeployFailed(f"RayService {self.name} was changed by others {ATTEMPTS} times in a row")

    @contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except KubeError as e:
            if e.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                remedy = f"the pod's service account needs get and patch on rayservices/{self.name}"
                raise UserError(str(e), remedy) from e
            raise DeployFailed(str(e)) from e


def _application(service: dict[str, Any], name: str) -> dict[str, Any]:
    """Its state as Serve's own API tells it; {} when there is none. A cluster that is being built counts when it is
    the only one."""
    status = service.get("status", {})
    active, pending = status.get("activeServiceStatus") or {}, status.get("pendingServiceStatus") or {}
    part = active if active.get("rayClusterName") else pending
    found = (part.get("applicationStatuses") or {}).get(name) or {}
    running = part is active or found.get("status") != "RUNNING"
    # Running in a cluster that no service points to yet is not served.
    return {**found, "deployments": found.get("serveDeploymentStatuses") or {}} if running else {}
