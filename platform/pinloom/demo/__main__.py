"""python -m pinloom.demo: start Ray and Airflow, let the scheduler run the DAGs, ask the endpoint, stop everything.

All of it is settings: PINLOOM_DATASET, PINLOOM_USERS_SAMPLE, PINLOOM_HOME, KEEP=1.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from components.contract import Role
from components.errors import UserError
from pinloom.datasets import DatasetSpec, load_dataset
from pinloom.datasets.source import open_source
from pinloom.demo.show import show_lift, show_places, show_rankings, show_time
from pinloom.demo.watch import Watch
from pinloom.local.airflow import LocalAirflow
from pinloom.ports import free_port
from pinloom.ray_cluster import Head, local_head
from pinloom.serving.smoke import Endpoint
from pinloom.settings import Settings, get_settings
from pinloom.steps.job import open_lake

ROOT = Path(__file__).parents[3]
DAGS = ("ingest", "features", "pretrain_pinfm", "train_pinsage", "train_transact", "finetune_pinfm", "deploy")
SERVED = "pinfm_ranker"
TIMEOUT_S = 3600.0
OVERRIDES = {
    "transact": {"sequence_length": 32, "epochs": 2},
    "pinfm_ranker": {"sequence_length": 32, "pinfm_events": 32, "epochs": 2},
    "pinsage": {"epochs": 3, "batch": 512, "negatives": 1000, "learning_rate": 0.04},
    "pinfm": {"epochs": 4, "batch": 8, "validation_queries": 300},
}
EVALUATION = {
    "transact": {"max_requests": 2000, "full_requests": 50},
    "pinfm_ranker": {"max_requests": 2000, "full_requests": 50, "ablation": False},
    "pinsage": {"max_pairs": 3000, "resamples": 200},
    "pinfm": {"max_questions": 500, "resamples": 200},
}
"""What makes it fit into ten minutes on two cores."""

AIRFLOW_CONFIG = {"scheduler.scheduler_heartbeat_sec": 1, "scheduler.scheduler_idle_sleep_time": 0.5}


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        settings = _settings()
        spec = load_dataset(settings.dataset)
        _demo(settings, spec)
    except UserError as e:
        print(f"\nthe demo stopped: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped")
    return 0


def _settings() -> Settings:
    """The settings of every process of the demo, in the environment that they all inherit; what is set stays."""
    defaults = {
        "PINLOOM_HOME": ".pinloom/demo",
        "PINLOOM_USERS_SAMPLE": "0.1",  # the declared sample: all actions of a hashed 10% of the users
        "PINLOOM_SERVING__PORT": str(free_port()),
        "PINLOOM_SERVING__RECIPE": SERVED,
        "PINLOOM_SERVING__API_KEY": secrets.token_urlsafe(16),
        "PINLOOM_AIRFLOW__SETTLE_INTERVAL_S": "5",
        "PINLOOM_AIRFLOW__POLL_INTERVAL_S": "2",
        "PINLOOM_AIRFLOW__RETRIES": "1",
        "PINLOOM_AIRFLOW__RETRY_DELAY_S": "1",
        "PINLOOM_AIRFLOW__TRAIN_DAYS": "84",
        "PINLOOM_AIRFLOW__TRAIN_OVERRIDES": json.dumps(OVERRIDES),
        "PINLOOM_AIRFLOW__EVALUATION": json.dumps(EVALUATION),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ["PINLOOM_HOME"] = str(Path(os.environ["PINLOOM_HOME"]).resolve())
    return get_settings()


def _demo(settings: Settings, spec: DatasetSpec) -> None:
    began = time.monotonic()
    first, end = open_source(spec, settings.users_sample).interval()
    print(f"'{spec.name}', {first} to {end}, {settings.users_sample:.0%} of its users; everything in {settings.home}")
    with local_head(settings) as head:
        # The log has ended: nothing is scheduled by day, the one run of `ingest` below takes all of it.
        env = {"PINLOOM_AIRFLOW__LOG_START": str(first), "PINLOOM_AIRFLOW__LOG_END": str(end), **head.env}
        with LocalAirflow(settings.home / "airflow", ROOT / "dags", env, config=AIRFLOW_CONFIG) as airflow:
            airflow.wait_for_dags(*DAGS)
            # Before anything can run: what the clock starts at once may be what does the work.
            watch = Watch(airflow, DAGS)
            airflow.unpause(*DAGS)
            print(f"Airflow {airflow.url}  Ray {head.jobs_url}  up after {time.monotonic() - began:.0f} s\n")
            airflow.trigger("ingest", {"start": str(first), "stop": str(end)})
            for dag in ("train_transact", "deploy"):
                watch.until_success(dag, TIMEOUT_S)
            _show(settings, spec, airflow, head)
            show_time(open_lake(settings, spec.name), watch.jobs(), time.monotonic() - began)
            if os.environ.get("KEEP") == "1":
                print("\nEverything stays up; Ctrl-C ends it.", flush=True)
                signal.pause()


def _show(settings: Settings, spec: DatasetSpec, airflow: LocalAirflow, head: Head) -> None:
    lake = open_lake(settings, spec.name)
    url = f"http://{settings.serving.host}:{settings.serving.port}"
    positive = spec.contract.names(Role.POSITIVE)[0]
    show_rankings(lake, Endpoint(url, settings.serving), positive)
    for recipe in ("transact", SERVED):
        show_lift(lake, recipe)
    show_places(lake, settings, {"endpoint": url, "Airflow": airflow.url, "Ray": head.jobs_url})


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
