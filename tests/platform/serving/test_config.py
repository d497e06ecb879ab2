"""The configuration file is one that Ray Serve takes, and it carries no secret."""

import json
from pathlib import Path

import pytest
from ray.serve.schema import ServeDeploySchema

from components.contract import Contract
from pinloom.serving.config import AppArgs, deploy_config, passed_on
from pinloom.settings import ServingSettings, Settings

CONTRACT = Contract.model_validate(
    {
        "name": "shop",
        "actions": [{"name": "buy", "role": "positive"}],
        "ties": "ordered",
        "splits": {"burn_in": "2026-01-01", "validation": "2026-02-01", "test": "2026-02-08", "end": "2026-02-15"},
    }
)
SERVING = {
    "api_key": "a-secret-of-enough-letters",
    "port": 8123,
    "route_prefix": "/shop",
    "min_replicas": 2,
    "max_replicas": 5,
    "target_ongoing_requests": 3.0,
    "max_ongoing_requests": 7,
    "max_queued_requests": 9,
    "cpus_per_replica": 0.25,
    "threads_per_replica": 2,
    "request_timeout_s": 4.0,
}


@pytest.fixture
def config():
    settings = Settings(home=Path("here"), serving=ServingSettings.model_validate(SERVING))
    args = AppArgs(
        contract=CONTRACT,
        lake="memory://lake",
        champion="memory://champion.json",
        online="memory://online.json",
        key_sha256="0" * 64,
        settings=passed_on(settings),
        deployment="d1",
    )
    return deploy_config(args)


def test_serve_takes_it_with_every_limit_of_the_settings(config):
    parsed = ServeDeploySchema.model_validate(config)
    (app,) = parsed.applications
    (gateway,) = app.deployments
    assert (app.name, app.route_prefix) == ("shop", "/shop")
    assert (parsed.http_options.port, parsed.http_options.request_timeout_s) == (8123, 4.0)
    assert (gateway.max_ongoing_requests, gateway.max_queued_requests) == (7, 9)
    scaling = gateway.autoscaling_config
    assert (scaling["min_replicas"], scaling["max_replicas"], scaling["target_ongoing_requests"]) == (2, 5, 3.0)
    assert gateway.ray_actor_options.num_cpus == 0.25
    assert gateway.ray_actor_options.runtime_env["env_vars"]["OMP_NUM_THREADS"] == "2"


def test_replacements_start_before_old_replicas_stop(config):
    assert config["applications"][0]["deployments"][0]["max_surge_percent"] == 100


def test_it_holds_no_secret(config):
    assert SERVING["api_key"] not in json.dumps(config)


def test_a_replica_gets_the_settings_of_the_deploying_process(config, monkeypatch):
    monkeypatch.setenv("PINLOOM_SERVING__MAX_CANDIDATES", "3")
    args = AppArgs.model_validate(json.loads(json.dumps(config["applications"][0]["args"])))
    settings = args.load_settings()
    assert settings.home == Path("here").resolve()
    assert settings.serving.max_replicas == 5
    assert settings.serving.max_candidates == ServingSettings().max_candidates
