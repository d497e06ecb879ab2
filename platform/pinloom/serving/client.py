"""Ray Serve's REST API: put one application among the others, wait for it, take it down."""

from __future__ import annotations

import re
import time
from typing import Any, Protocol

import requests

from components.errors import UserError
from pinloom.settings import RaySettings

PATH = "/api/serve/applications/"
POLL_S = 0.5
CALL_S = 180.0
"""For one call: the first one starts Serve itself, which a busy machine does slowly."""


class DeployFailed(RuntimeError):
    """Serve could not bring the application up; the message says why."""


class ServingApi(Protocol):
    """What the deploy step asks of the place that serves: Ray's own API, or a RayService (`.rayservice`)."""

    timeout_s: float
    """For an application to come up."""
    settle_s: float
    """How long another deployment may still answer after `wait`."""

    def put(self, config: dict[str, Any]) -> None: ...

    def remove(self, config: dict[str, Any]) -> None: ...

    def wait(self, name: str, timeout_s: float) -> None: ...

    def base_url(self, prefix: str) -> str: ...


class ServeApi:
    timeout_s = 300.0
    settle_s = 0.0

    def __init__(self, ray: RaySettings) -> None:
        self.url = ray.jobs_url.rstrip("/") + PATH
        self._headers = {"Authorization": f"Bearer {ray.token.get_secret_value()}"} if ray.token else {}

    def _call(self, method: str, body: dict[str, Any] | None = None) -> requests.Response:
        try:
            response = requests.request(method, self.url, json=body, headers=self._headers, timeout=CALL_S)
        except requests.RequestException as e:
            raise UserError(
                f"Ray does not answer at {self.url}: {type(e).__name__}",
                "start Ray with its dashboard, or set PINLOOM_RAY__JOBS_URL",
            ) from e
        if response.status_code in (401, 403):
            raise UserError(f"Ray refuses the token at {self.url}", "set PINLOOM_RAY__TOKEN to the cluster's token")
        if not response.ok:
            raise DeployFailed(f"Ray Serve answered {response.status_code}: {response.text.strip()[-2000:]}")
        return response

    def details(self) -> dict[str, Any]:
        """The state of Serve (`ServeInstanceDetails`)."""
        found: dict[str, Any] = self._call("GET").json()
        return found

    def application(self, name: str) -> dict[str, Any] | None:
        """The state of one application, or None when it is not there."""
        found: dict[str, Any] | None = self.details()["applications"].get(name)
        return found

    def base_url(self, prefix: str) -> str:
        """Where the proxies answer, as they were started (their options outlive a configuration)."""
        http = self.details().get("http_options") or {}
        host = http.get("host", "127.0.0.1")
        host = "127.0.0.1" if host in ("0.0.0.0", "") else host
        return f"http://{host}:{http.get('port', 8000)}{prefix.rstrip('/')}"

    def put(self, config: dict[str, Any]) -> None:
        """Apply the one application of `config` and leave the others as they are (the API replaces all of them).

        Raises:
            UserError: another application has its route prefix.
        """
        (mine,) = config["applications"]
        others = self._others(mine["name"])
        check_free(others, mine)
        self._call("PUT", {**config, "applications": [*others, mine]})

    def remove(self, config: dict[str, Any]) -> None:
        (mine,) = config["applications"]
        self._call("PUT", {**config, "applications": self._others(mine["name"])})

    def _others(self, name: str) -> list[dict[str, Any]]:
        applications = self.details()["applications"]
        return [app["deployed_app_config"] for other, app in applications.items() if other != name and _declared(app)]

    def wait(self, name: str, timeout_s: float) -> None:
        """Until every replica of the application is at the configuration that was put.

        Raises:
            DeployFailed: it did not get there; the old replicas, if any, still serve.
        """
        deadline = time.monotonic() + timeout_s
        app: dict[str, Any] | None = None
        while time.monotonic() < deadline:
            app = self.application(name)
            if app is not None and app["status"] == "RUNNING":
                return
            if app is not None and app["status"] == "DEPLOY_FAILED":
                raise DeployFailed(reason(app))
            time.sleep(POLL_S)
        raise DeployFailed(f"not running after {timeout_s:.0f} s: {reason(app or {})}")


def check_free(others: list[dict[str, Any]], mine: dict[str, Any]) -> None:
    """
    Raises:
        UserError: one of the others has the route prefix of mine.
    """
    taken = [o["name"] for o in others if o.get("route_prefix", "/") == mine["route_prefix"]]
    if taken:
        raise UserError(
            f"'{taken[0]}' is served under '{mine['route_prefix']}' already",
            f"set PINLOOM_SERVING__ROUTE_PREFIX=/{mine['name']}, or take the other one down",
        )


def _declared(app: dict[str, Any]) -> bool:
    return bool(app.get("deployed_app_config")) and app["status"] != "DELETING"


def reason(app: dict[str, Any]) -> str:
    """Why an application is not running: our own error where a replica raised one, else what Serve says."""
    said = [app.get("message", ""), *(d.get("message", "") for d in app.get("deployments", {}).values())]
    text = "\n".join(s for s in said if s)
    ours = re.findall(r"^(?:[\w.]*\.)?UserError: (.+(?:\n  remedy: .+)?)", text, flags=re.MULTILINE)
    return ours[-1] if ours else text.strip()[-2000:] or "Serve gives no reason"
