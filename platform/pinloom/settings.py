"""Every setting of the platform, typed, from `PINLOOM_*` environment variables.

Nested groups use two underscores: `PINLOOM_TRAINING__WORKERS=4`. Laptop and cluster differ only here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from components.errors import UserError

PREFIX = "PINLOOM_"
NOT_SETTINGS = re.compile(r"PINLOOM_(KUAIRAND|KUBECONFIG|KUBERAY_CHART|IMAGE_[A-Z]+|PROBE)")
"""Variables of ours that data sets and tests read."""
SERVICE_LINK = re.compile(
    r"(?!\w*__)\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes puts into each pod for each Service: one named `pinloom-ray` makes `PINLOOM_RAY_SERVICE_HOST`."""


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RaySettings(Group):
    """Where jobs run.

    `logical_cpus` is what the local head is told it has: a bookkeeping number that lets training start beside
    serving replicas on a 2-core laptop; each actor declares its share and caps its threads.
    """

    address: str = "auto"
    jobs_url: str = "http://127.0.0.1:8265"
    token: SecretStr | None = None
    logical_cpus: int = 8
    object_store_bytes: int = Field(default=256 * 1024**2, description="of a head started here")
    schedule_timeout_s: float = Field(default=40.0, description="for room for all workers; start-up comes on top")


class TrainingSettings(Group):
    workers: int = 2
    cpus_per_worker: float = 1.0
    threads_per_worker: int = 1
    use_gpu: bool = False
    gpus_per_worker: float = 1.0
    bf16: bool = False
    max_failures: int = 2
    prefetch_batches: int = 4
    checkpoint_steps: int | None = Field(default=1000, description="beside every epoch's end; None = only there")
    log_every_s: float = Field(default=5.0, description="between two lines of progress")


class OnlineSettings(Group):
    """The online feature store behind Feast."""

    store: Literal["sqlite", "redis"] = "sqlite"
    redis_url: str = "localhost:6379"


class ServingSettings(Group):
    recipe: Literal["transact", "pinfm_ranker"] = Field(default="transact", description="whose champion ranks")
    host: str = "127.0.0.1"
    port: int = 8000
    route_prefix: str = Field(default="/", description="one per data set when several are served on one Ray")
    api_key: SecretStr | None = None
    require_api_key: bool = True
    min_replicas: int = 1
    max_replicas: int = 2
    cpus_per_replica: float = 0.5
    threads_per_replica: int = 1
    max_ongoing_requests: int = 32
    target_ongoing_requests: float = 8.0
    max_queued_requests: int = Field(default=256, description="waiting for a replica, per proxy; more are answered 503")
    request_timeout_s: float = 10.0
    max_candidates: int = 2000
    context_cache_mb: int = Field(default=256, ge=0, description="histories kept encoded, per replica; 0 = none")


class KubernetesSettings(Group):
    """The cluster, when jobs are RayJobs or serving is a RayService. In a pod the defaults are right.

    Elsewhere `kubectl proxy` is the easiest way in: `PINLOOM_KUBERNETES__URL=http://127.0.0.1:8001`.
    """

    url: str | None = Field(default=None, description="of the API server; default: the pod's own cluster")
    namespace: str | None = Field(default=None, description="default: the pod's own")
    token_file: Path | None = Field(default=None, description="bearer token; default: the pod's service account")
    ca_file: Path | None = Field(default=None, description="certificates to trust; default: the service account's")
    rayservice: str = Field(default="", description="name of the RayService that serves; empty: Serve at ray.jobs_url")
    serving_url: str | None = Field(
        default=None, description="where rankings answer; default: the RayService's service"
    )
    rayjobs: Path | None = Field(default=None, description="folder with RayJobs: <step>.yaml, else default.yaml")


class AirflowSettings(Group):
    """When the DAGs run and how their tasks watch their jobs.

    `log_end` is for a log that no longer grows: no day from it on is scheduled (backfill and manual runs remain).
    """

    backend: Literal["ray", "kuberay"] = Field(default="ray", description="jobs of one Ray, or a RayJob for each")
    log_start: date = date(2017, 1, 1)
    log_end: date | None = None
    ingest_cron: str = "0 0 * * *"
    train_cron: str = "0 3 * * 1"
    pretrain_cron: str = "0 4 1 * *"
    pretrain_every_days: int = Field(default=28, ge=0, description="how long a base lasts when the features change")
    train_flavour: dict[str, str] = Field(default={}, description="recipe → flavour; none: the step's default")
    train_overrides: dict[str, dict[str, Any]] = Field(default={}, description="recipe → fields of its configuration")
    evaluation: dict[str, dict[str, Any]] = Field(default={}, description="recipe → parameters of the step")
    train_days: int | None = Field(
        default=None,
        description="rankers learn from so many days before the validation split, graphs end before them",
    )
    embeddings: Literal["pinsage", ""] = Field(
        default="pinsage", description="recipe whose item vectors rankers read; '' = content vectors"
    )
    foundation: Literal["pinfm", ""] = Field(
        default="pinfm", description="recipe that is pretrained on everybody's events; '' = none"
    )
    command: str = Field(default="pinloom", description="what runs a step, on the machines where jobs run")
    retries: int = 2
    retry_delay_s: float = 60.0
    poll_interval_s: float = 2.0
    settle_interval_s: float = Field(default=60.0, description="between two looks whether upstream DAGs are done")
    pending_timeout_s: float = Field(default=600.0, description="how long a job may wait for resources")


class Settings(BaseSettings):
    """One object; pass it, do not read the environment elsewhere."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="ignore")

    home: Path = Field(default=Path(".pinloom"), description="local state: lake, stores, logs (embedded default)")
    lake: str | None = Field(default=None, description="fsspec URL of the lake; default file://<home>/lake")
    dataset: str = Field(default="completejourney", description="name of a shipped data set or path of a YAML")
    users_sample: float = Field(default=1.0, gt=0, le=1, description="share of users ingested (hash of the id)")
    mlflow_uri: str | None = Field(default=None, description="tracking and registry; default sqlite in <home>")
    ray: RaySettings = RaySettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    airflow: AirflowSettings = AirflowSettings()
    training: TrainingSettings = TrainingSettings()
    online: OnlineSettings = OnlineSettings()
    serving: ServingSettings = ServingSettings()

    @property
    def lake_root(self) -> str:
        return (self.lake or f"file://{self.home.resolve()}/lake").rstrip("/")

    @property
    def mlflow(self) -> str:
        return self.mlflow_uri or f"sqlite:///{self.home.resolve()}/mlflow.db"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process.

    Raises:
        UserError: a variable is unknown or has a wrong value.
    """
    refuse_unknown(os.environ)
    try:
        return Settings()
    except ValidationError as e:
        wrong = [f"{_variable(err['loc'])}: {err['msg']}" for err in e.errors()]
        raise UserError("; ".join(wrong), "set the variable to such a value, or unset it for the default") from None
    except SettingsError as e:
        remedy = 'write lists and mappings as JSON, e.g. \'{"transact": "debug"}\''
        raise UserError(f"{PREFIX}…: {e}", remedy) from None


def refuse_unknown(environment: Mapping[str, str]) -> None:
    """Refuse `PINLOOM_*` variables that no setting has: a misspelt one would leave the default without a word.

    Raises:
        UserError: names each, and the settings whose names are near.
    """
    known, open_ended = _variables()
    wrong = [
        name
        for name in sorted(environment)
        if (upper := name.upper()).startswith(PREFIX)
        and upper not in known
        and not upper.startswith(open_ended)
        and not NOT_SETTINGS.fullmatch(upper)
        and not SERVICE_LINK.fullmatch(upper)
    ]
    if wrong:
        near = dict.fromkeys(n for name in wrong for n in get_close_matches(name.upper(), sorted(known)))
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"there is no setting {', '.join(wrong)}", f"{meant}Mend the name, or unset the variable")


def _variables() -> tuple[set[str], tuple[str, ...]]:
    """Names of all variables, and how those begin that set one entry of a mapping."""
    known, open_ended = set(), []
    for name, field in Settings.model_fields.items():
        known.add(_variable((name,)))
        for inner, of in getattr(field.annotation, "model_fields", {}).items():
            known.add(_variable((name, inner)))
            if get_origin(of.annotation) is dict:
                open_ended.append(_variable((name, inner, "")))
    return known, tuple(open_ended)


def _variable(place: tuple[int | str, ...]) -> str:
    return PREFIX + "__".join(map(str, place)).upper()
