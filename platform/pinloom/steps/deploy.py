"""`deploy`: the champion and the online snapshot as a Ray Serve application; tried, then kept or rolled back."""

from __future__ import annotations

import logging
from typing import Any

import polars as pl
import yaml
from pydantic import Field

from components.errors import UserError
from pinloom.lake import Lake, Manifest
from pinloom.serving.client import DeployFailed, ServeApi, ServingApi
from pinloom.serving.compatibility import check_compatible, newest_fitting
from pinloom.serving.config import AppArgs, deploy_config, key_digest, passed_on
from pinloom.serving.rayservice import RayServiceApi
from pinloom.serving.smoke import Endpoint, SmokeFailed, smoke_test
from pinloom.steps.base import Params, Step, StepContext, World

log = logging.getLogger("pinloom.deploy")

FILE = "serve.yaml"
SAMPLE_USERS = 20


class DeployParams(Params):
    """Filled in from the settings by `complete`: another port, replica count or key is another deployment.

    Attributes:
        recipe: whose champion ranks; default `settings.serving.recipe`.
    """

    recipe: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    key_sha256: str | None = None


def complete(params: DeployParams, world: World) -> DeployParams:
    """The settings as they are now; the newest snapshot that fits the champion, unless one is given.

    Raises:
        UserError: a key is required and none is configured.
    """
    recipe = params.recipe or world.settings.serving.recipe
    params = DeployParams(
        recipe=recipe, settings=passed_on(world.settings), key_sha256=key_digest(world.settings.serving)
    )
    if "online" not in world.given:
        world.given["online"] = newest_fitting(world.lake, world.input("champion", params))
    return params


def run(ctx: StepContext) -> None:
    champion, online, index = ctx.input("champion"), ctx.input("online"), ctx.inputs.get("index")
    check_compatible(ctx.lake, champion, online)
    args = AppArgs(
        contract=ctx.spec.contract,
        lake=ctx.lake.root,
        champion=champion.uri,
        online=online.uri,
        index=index.uri if index else None,
        key_sha256=ctx.params.key_sha256,
        settings=ctx.params.settings,
        deployment=ctx.key,
        earliest=ctx.spec.validation.earliest,
        sample_users=sample_users(ctx.lake, online),
    )
    ctx.output("deployment").bytes(FILE, yaml.safe_dump(deploy_config(args), sort_keys=False).encode())


def sample_users(lake: Lake, online: Manifest) -> tuple[str, ...]:
    """Some users with a history."""
    histories = lake.manifest(online.inputs["features"]["uri"]).output("histories")
    largest = max(histories.files, key=lambda f: f.rows or 0)
    rows = pl.scan_parquet(lake.local_path(largest.uri)).select("user_id").head(SAMPLE_USERS).collect()
    if rows.is_empty():
        raise UserError(f"no user in {online.inputs['features']['uri']} has a history", "build features over more days")
    return tuple(rows["user_id"])


def commit(ctx: StepContext, manifest: Manifest) -> None:
    """Bring the application up, or up to date; on failure put the previous one back and say why."""
    api = _place(ctx)
    try:
        _bring_up(api, ctx, manifest)
    except (DeployFailed, SmokeFailed) as e:
        raise UserError(f"deployment {manifest.key} does not serve: {e}", _roll_back(api, ctx, manifest)) from e


def _place(ctx: StepContext) -> ServingApi:
    return RayServiceApi(ctx.settings) if ctx.settings.kubernetes.rayservice else ServeApi(ctx.settings.ray)


def _bring_up(api: ServingApi, ctx: StepContext, manifest: Manifest) -> None:
    config = _config(ctx.lake, manifest)
    (app,) = config["applications"]
    api.put(config)
    api.wait(app["name"], api.timeout_s)
    url = api.base_url(app["route_prefix"])
    smoke_test(Endpoint(url, ctx.settings.serving), manifest.key, app["args"]["sample_users"][0], api.settle_s)
    log.info("'%s' answers at %s", app["name"], url)


def _roll_back(api: ServingApi, ctx: StepContext, failed: Manifest) -> str:
    """Put the deployment that the pointer `serving` names back. Returns what serves now."""
    previous = ctx.lake.latest("serving")
    try:
        if previous is None:
            api.remove(_config(ctx.lake, failed))
            return "nothing is served; mend the cause and deploy again"
        config = _config(ctx.lake, previous)
        api.put(config)
        api.wait(config["applications"][0]["name"], api.timeout_s)
    except DeployFailed as e:
        return f"the roll back failed too ({e}): look at Ray Serve's logs"
    return f"the previous deployment {previous.key} serves again; mend the cause and deploy again"


def _config(lake: Lake, manifest: Manifest) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(lake.read_bytes(manifest.file("deployment", FILE)))
    return config


STEP = Step(
    name="deploy",
    version=1,
    run=run,
    params=DeployParams,
    inputs={"champion": "champions/{recipe}", "online": "online", "index": "index?"},
    advances="serving",
    reads=("contract", "validation.earliest"),
    complete=complete,
    commit=commit,
)
