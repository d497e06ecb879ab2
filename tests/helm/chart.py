"""The chart, rendered by real helm."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.helm.tool import tool

CHART = Path(__file__).parents[2] / "helm" / "pinloom"
RELEASE, NAMESPACE = "rec", "ml"
KUBERAY = ("RayService", "RayJob", "RayCluster")
CASES = {
    "default": None,
    "small": CHART / "values-small.yaml",
    **{path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*.yaml"))},
}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where it is: the same, ten times faster."""

Object = dict[str, Any]


class Refused(Exception):
    """helm did not render; the message is its own."""


@dataclass(frozen=True)
class Rendered:
    objects: tuple[Object, ...]

    def all(self, kind: str) -> list[Object]:
        return [o for o in self.objects if o["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        (found,) = (o for o in self.all(kind) if o["metadata"]["name"] == name)
        return found

    def names(self, kind: str) -> set[str]:
        return {o["metadata"]["name"] for o in self.all(kind)}

    def rayjobs(self) -> dict[str, Object]:
        """The templates of RayJobOperator, by file name."""
        data = self.one("ConfigMap", f"{RELEASE}-pinloom-rayjobs")["data"]
        return {file: yaml.load(text, LOADER) for file, text in data.items()}

    def worker_pod(self) -> list[Object]:
        """The pod of a task, with KubernetesExecutor."""
        found = [o for o in self.all("ConfigMap") if o["metadata"]["name"].endswith("-airflow-pod")]
        return [yaml.load(o["data"]["pod.yaml"], LOADER) for o in found]

    def ray_clusters(self) -> Iterator[tuple[str, Object]]:
        """Every RayCluster spec, with where it is."""
        for service in self.all("RayService"):
            yield "RayService", service["spec"]["rayClusterConfig"]
        for cluster in self.all("RayCluster"):
            yield "RayCluster", cluster["spec"]
        for file, job in self.rayjobs().items():
            if "rayClusterSpec" in job["spec"]:
                yield file, job["spec"]["rayClusterSpec"]

    def pod_templates(self) -> Iterator[tuple[str, Object]]:
        """Every pod that the chart or KubeRay will make of it (`metadata`, `spec`), with where it is."""
        for o in self.objects:
            where = f"{o['kind']}/{o['metadata']['name']}"
            if o["kind"] in ("Deployment", "StatefulSet", "Job"):
                yield where, o["spec"]["template"]
            elif o["kind"] == "Pod":
                yield where, o
        for pod in self.worker_pod():
            yield "pod of a task", pod
        for where, cluster in self.ray_clusters():
            yield f"{where}, head", cluster["headGroupSpec"]["template"]
            for group in cluster["workerGroupSpecs"]:
                yield f"{where}, {group['groupName']}", group["template"]
        for file, job in self.rayjobs().items():
            if "submitterPodTemplate" in job["spec"]:
                yield f"{file}, submitter", job["spec"]["submitterPodTemplate"]


def environment(rendered: Rendered, container: Object, changed: dict[str, str]) -> dict[str, str]:
    """The variables of a container of the chart, with what another network makes of some."""
    env: dict[str, str] = {}
    for source in container.get("envFrom", []):
        env |= rendered.one("ConfigMap", source["configMapRef"]["name"])["data"]
    (secret,) = rendered.all("Secret")
    for variable in container.get("env", []):
        key = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("key")
        env[variable["name"]] = secret["stringData"][key] if key else variable["value"]
    return env | changed


def render(
    values: Path | None = None, *, kuberay: bool = True, arguments: Sequence[str] = (), **settings: Any
) -> Rendered:
    """`helm template`. Settings are values by dotted path, dots written as two underscores; arguments are helm's.

    Raises:
        Refused: helm says no.
    """
    command = [tool("helm"), "template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    for kind in KUBERAY if kuberay else ():
        command += ["--api-versions", f"ray.io/v1/{kind}"]
    if values:
        command += ["--values", str(values)]
    command += arguments
    for path, value in settings.items():
        command += ["--set-json", f"{path.replace('__', '.')}={json.dumps(value)}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Refused(done.stderr)
    return Rendered(tuple(o for o in yaml.load_all(done.stdout, LOADER) if o))
