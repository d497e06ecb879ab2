"""The Serve application as a configuration file: what `serve deploy` and the REST API take, one per data set.

Nothing here imports Ray or FastAPI: the `deploy` step writes the file, Ray reads it.
"""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.contract import Contract
from components.errors import UserError
from pinloom.datasets.spec import ValidationSpec
from pinloom.settings import ServingSettings, Settings

IMPORT_PATH = "pinloom.serving.application:build"
PASSED_ON = ("home", "lake", "online", "serving")
"""Parts of the settings that replicas need; they do not read the deploying process's environment."""

MIN_KEY_LENGTH = 16
"""The deployment's configuration carries the key's hash, so that a guessable key could be found from it."""


class AppArgs(BaseModel):
    """All that a replica needs to load, and whom it lets in. A change of any of it rolls the replicas over.

    Attributes:
        lake: URL of the data set's lake.
        champion: URI of the `train` manifest whose artifact scores.
        online: URI of the `materialize` manifest whose snapshot and store are read.
        index: URI of the `index` manifest that finds related items; None = nothing does.
        key_sha256: digest of the API key, None when anybody may call.
        settings: the `PASSED_ON` parts of the settings, secrets left out.
        deployment: key of the deploy step.
        earliest: UTC day before which no action's timestamp is believed.
        sample_users: some users with a history, offered by the page and used by the smoke test.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    contract: Contract
    lake: str
    champion: str
    online: str
    index: str | None = None
    key_sha256: str | None
    settings: dict[str, Any]
    deployment: str
    earliest: date = ValidationSpec().earliest
    sample_users: tuple[str, ...] = ()

    def load_settings(self) -> Settings:
        return Settings(**self.settings)


def key_digest(settings: ServingSettings) -> str | None:
    """SHA-256 (hex) of the API key, or None when no key is required.

    Raises:
        UserError: a key is required and missing or too short.
    """
    if not settings.require_api_key:
        return None
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    if not key:
        raise UserError(
            "serving needs an API key and none is configured",
            "set PINLOOM_SERVING__API_KEY to a secret, or PINLOOM_SERVING__REQUIRE_API_KEY=false to serve anybody",
        )
    if len(key) < MIN_KEY_LENGTH:
        raise UserError(
            f"the API key has {len(key)} characters, fewer than {MIN_KEY_LENGTH}",
            "make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return hashlib.sha256(key.encode()).hexdigest()


def passed_on(settings: Settings) -> dict[str, Any]:
    """The `PASSED_ON` parts as plain JSON, paths absolute, without the API key."""
    values = settings.model_dump(mode="json", include=set(PASSED_ON), exclude={"serving": {"api_key"}})
    return {**values, "home": str(settings.home.resolve()), "lake": settings.lake_root}


def application(args: AppArgs) -> dict[str, Any]:
    """One entry of `applications` in a Serve configuration."""
    serving = args.load_settings().serving
    threads = str(serving.threads_per_replica)
    env = {"OMP_NUM_THREADS": threads, "POLARS_MAX_THREADS": threads}
    return {
        "name": args.contract.name,
        "route_prefix": serving.route_prefix,
        "import_path": IMPORT_PATH,
        "args": args.model_dump(mode="json"),
        "deployments": [
            {
                "name": "Gateway",
                "max_ongoing_requests": serving.max_ongoing_requests,
                "max_queued_requests": serving.max_queued_requests,
                "max_surge_percent": 100,
                "autoscaling_config": {
                    "min_replicas": serving.min_replicas,
                    "max_replicas": serving.max_replicas,
                    "target_ongoing_requests": serving.target_ongoing_requests,
                },
                "ray_actor_options": {"num_cpus": serving.cpus_per_replica, "runtime_env": {"env_vars": env}},
            },
        ],
    }


def http_options(settings: Settings) -> dict[str, Any]:
    """Options of Serve's proxies: of the whole cluster, fixed when Serve starts."""
    serving = settings.serving
    return {"host": serving.host, "port": serving.port, "request_timeout_s": serving.request_timeout_s}


def deploy_config(args: AppArgs) -> dict[str, Any]:
    """A whole `ServeDeploySchema`: `serve deploy FILE` brings up this data set alone."""
    return {
        "proxy_location": "EveryNode",
        "http_options": http_options(args.load_settings()),
        "applications": [application(args)],
    }
