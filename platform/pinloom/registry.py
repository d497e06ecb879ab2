"""MLflow runs and the model registry of one data set: versions are manifests, aliases say which one serves.

A run is found by the key of the step that made it, a version by the key of its manifest, so that a restart or a retry
adds nothing. MLflow is imported when first asked for: it takes seconds.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.errors import UserError
from pinloom.lake import Manifest
from pinloom.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONNECT_TIMEOUT_S = 10.0
KEY_TAG = "pinloom.key"
MANIFEST_TAG = "pinloom.manifest"


@dataclass(frozen=True)
class Version:
    """One version of a registered model.

    Attributes:
        number: as MLflow counts, from '1'.
        manifest: URI of the manifest of the `train` step that made it.
        key: that step's key.
    """

    number: str
    manifest: str
    key: str
    run_id: str


class Registry:
    """Registered models `<dataset>-<recipe>` and the experiment `<dataset>`."""

    def __init__(self, settings: Settings, dataset: str) -> None:
        self.settings = settings
        self.dataset = dataset

    @cached_property
    def client(self) -> MlflowClient:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        if self.settings.mlflow.startswith("sqlite:///"):
            self.settings.home.mkdir(parents=True, exist_ok=True)
        self.require()
        return MlflowClient(tracking_uri=self.settings.mlflow, registry_uri=self.settings.mlflow)

    def require(self) -> None:
        """Fail now rather than after the work that is to be registered.

        Raises:
            UserError: a tracking server is set, and nothing answers there.
        """
        if self.settings.mlflow.startswith("http"):
            _require_server(self.settings.mlflow)

    def model(self, recipe: str) -> str:
        return f"{self.dataset}-{recipe}"

    # -- runs ------------------------------------------------------------------------------------

    @cached_property
    def experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(self.dataset)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self.client.create_experiment(self.dataset, artifact_location=self._artifact_location()))
        except MlflowException:
            # Another process came first.
            found = self.client.get_experiment_by_name(self.dataset)
            if found is None:
                raise
            return str(found.experiment_id)

    def _artifact_location(self) -> str | None:
        """A folder beside the embedded database; a tracking server knows its own place."""
        if not self.settings.mlflow.startswith("sqlite:///"):
            return None
        return f"file://{self.settings.home.resolve()}/mlartifacts/{self.dataset}"

    def run_of(self, key: str) -> str | None:
        """Id of the run that the step with `key` made, or None."""
        runs = self.client.search_runs(
            [self.experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", order_by=["attributes.start_time ASC"]
        )
        return str(runs[0].info.run_id) if runs else None

    def ensure_run(self, key: str, name: str, tags: dict[str, str], params: dict[str, Any]) -> str:
        """Id of the run of `key`, made now if there is none; running again if it had ended."""
        run_id = self.run_of(key)
        if run_id is not None:
            self.client.update_run(run_id, status="RUNNING")
            return run_id
        run = self.client.create_run(self.experiment_id, run_name=name, tags={**tags, KEY_TAG: key})
        for param, value in params.items():
            self.client.log_param(run.info.run_id, param, value)
        return str(run.info.run_id)

    # -- versions --------------------------------------------------------------------------------

    def register(self, recipe: str, manifest: Manifest) -> str:
        """Version number of `manifest` as a model of `recipe`; a second call returns the first one's."""
        from mlflow.exceptions import MlflowException

        known = [v for v in self.versions(recipe) if v.key == manifest.key]
        if known:
            return known[0].number
        try:
            self.client.create_registered_model(self.model(recipe), tags={"recipe": recipe, "dataset": self.dataset})
        except MlflowException as e:
            if e.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        run_id = self.run_of(manifest.key)
        made = self.client.create_model_version(
            self.model(recipe),
            # A server takes no local path for a source; the weights are in the lake, named by the tag.
            source=f"runs:/{run_id}" if run_id else manifest.uri,
            run_id=run_id,
            tags={MANIFEST_TAG: manifest.uri, KEY_TAG: manifest.key},
        )
        return str(made.version)

    def versions(self, recipe: str) -> list[Version]:
        """All versions, oldest first."""
        found = self.client.search_model_versions(f"name = '{self.model(recipe)}'")
        return sorted((_version(v) for v in found), key=lambda v: int(v.number))

    def manifest_uri(self, recipe: str, version: str) -> str:
        """URI of the `train` manifest of a version.

        Raises:
            UserError: there is no such version.
        """
        for known in self.versions(recipe):
            if known.number == str(version):
                return known.manifest
        raise UserError(
            f"model '{self.model(recipe)}' has no version {version}",
            f"versions: {', '.join(v.number for v in self.versions(recipe)) or 'none'}",
        )

    def version_of(self, recipe: str, manifest: Manifest) -> str | None:
        """Version number of a `train` manifest, or None when it was never registered."""
        return next((v.number for v in self.versions(recipe) if v.key == manifest.key), None)

    # -- aliases ---------------------------------------------------------------------------------

    def alias(self, recipe: str, alias: str) -> tuple[str, str] | None:
        """(version, manifest URI) that `alias` names, or None."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_model_version_by_alias(self.model(recipe), alias)
        except MlflowException as e:
            if e.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        version = _version(found)
        return version.number, version.manifest

    def aliased(self) -> list[str]:
        """Manifest URIs of every version of this data set's models that any alias names."""
        if not self._exists:
            return []
        models = self.client.search_registered_models(filter_string=f"name LIKE '{self.dataset}-%'")
        named = [self.client.get_model_version(m.name, v) for m in models for v in set(m.aliases.values())]
        return [_version(v).manifest for v in named]

    @property
    def _exists(self) -> bool:
        """Whether there is a registry at all: asking an embedded one would create it."""
        return not self.settings.mlflow.startswith("sqlite:///") or Path(self.settings.mlflow[10:]).exists()

    def move_alias(self, recipe: str, alias: str, version: str, reason: str) -> None:
        """Let `alias` name `version`, and write the reason on the version. Idempotent."""
        self.client.set_model_version_tag(self.model(recipe), version, f"pinloom.reason.{alias}", reason)
        self.client.set_registered_model_alias(self.model(recipe), alias, version)

    def tag(self, recipe: str, version: str, name: str, text: str) -> None:
        """Write the tag `pinloom.<name>` on a version."""
        self.client.set_model_version_tag(self.model(recipe), version, f"pinloom.{name}", text)

    def reason(self, recipe: str, alias: str, version: str) -> str:
        """Why `alias` was moved to `version` ('' when it never was)."""
        tags = self.client.get_model_version(self.model(recipe), version).tags
        return str(tags.get(f"pinloom.reason.{alias}", ""))


def _require_server(uri: str) -> None:
    """MLflow itself would try a dead address for minutes."""
    parts = urlsplit(uri)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as e:
        raise UserError(
            f"no MLflow server answers at {uri}", "start it, or unset PINLOOM_MLFLOW_URI to use a local database"
        ) from e


def _version(found: Any) -> Version:
    return Version(
        number=str(found.version),
        manifest=found.tags.get(MANIFEST_TAG, ""),
        key=found.tags.get(KEY_TAG, ""),
        run_id=found.run_id or "",
    )
