"""What Kubernetes and KubeRay accept, strictly: a field that they do not know is an error."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

VERSION = "1.35.0"
FOLDER = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSION}-local-strict"


@cache
def _definitions() -> Resource:
    return Resource.from_contents(json.loads((FOLDER / "_definitions.json").read_text()))


@cache
def _validator(api_version: str, kind: str) -> Draft202012Validator:
    version = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = json.loads((FOLDER / f"{kind.lower()}-{version}.json").read_text())
    registry: Registry = _definitions() @ (Resource.from_contents(schema) @ Registry())
    return Draft202012Validator(schema, registry=registry)


def kubernetes_errors(o: dict[str, Any]) -> list[str]:
    """What the Kubernetes schema of its kind has against an object."""
    return [_say(e) for e in _validator(o["apiVersion"], o["kind"]).iter_errors(o)]


def kuberay_errors(o: dict[str, Any]) -> list[str]:
    """The same for KubeRay's kinds; their pod templates and services are checked by Kubernetes' schemas."""
    said = [_say(e) for e in Draft202012Validator(KUBERAY[o["kind"]]).iter_errors(o["spec"])]
    return said + [error for template in _templates(o["spec"]) for error in _template_errors(template)]


def _say(error: Any) -> str:
    return f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def _templates(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [t for v in value for t in _templates(v)]
    if not isinstance(value, dict):
        return []
    own = [v for k, v in value.items() if k in ("template", "submitterPodTemplate")]
    return own + [t for k, v in value.items() if k not in ("template", "submitterPodTemplate") for t in _templates(v)]


def _template_errors(template: dict[str, Any]) -> list[str]:
    return kubernetes_errors(
        {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
    )


def _closed(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


# The fields of KubeRay 1.6's API reference (docs/reference/api.md), ray.io/v1. `ANY` are Kubernetes' own types.
ANY: dict[str, Any] = {}
TEXT, WHOLE, YES, NUMBER = ({"type": t} for t in ("string", "integer", "boolean", "number"))
TEXTS = {"type": "object", "additionalProperties": TEXT}
AUTOSCALER = _closed(
    resources=ANY,
    image=TEXT,
    imagePullPolicy=TEXT,
    securityContext=ANY,
    idleTimeoutSeconds=WHOLE,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    env=ANY,
    envFrom=ANY,
    volumeMounts=ANY,
)
HEAD = _closed(
    ("rayStartParams", "template"),
    template=ANY,
    headService=ANY,
    enableIngress=YES,
    resources=TEXTS,
    labels=TEXTS,
    rayStartParams=TEXTS,
    serviceType=TEXT,
)
WORKERS = _closed(
    ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    suspend=YES,
    groupName=TEXT,
    replicas=WHOLE,
    minReplicas=WHOLE,
    maxReplicas=WHOLE,
    idleTimeoutSeconds=WHOLE,
    resources=TEXTS,
    labels=TEXTS,
    rayStartParams=TEXTS,
    template=ANY,
    scaleStrategy=ANY,
    numOfHosts=WHOLE,
)
CLUSTER = _closed(
    ("headGroupSpec",),
    upgradeStrategy=ANY,
    authOptions=ANY,
    suspend=YES,
    managedBy=TEXT,
    autoscalerOptions=AUTOSCALER,
    headServiceAnnotations=TEXTS,
    enableInTreeAutoscaling=YES,
    gcsFaultToleranceOptions=ANY,
    headGroupSpec=HEAD,
    rayVersion=TEXT,
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
JOB = _closed(
    activeDeadlineSeconds=WHOLE,
    backoffLimit=WHOLE,
    rayClusterSpec=CLUSTER,
    submitterPodTemplate=ANY,
    metadata=TEXTS,
    clusterSelector=TEXTS,
    submitterConfig=ANY,
    managedBy=TEXT,
    deletionStrategy=ANY,
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    entrypointResources=TEXT,
    entrypointNumCpus=NUMBER,
    entrypointNumGpus=NUMBER,
    ttlSecondsAfterFinished=WHOLE,
    preRunningDeadlineSeconds=WHOLE,
    shutdownAfterJobFinishes=YES,
    suspend=YES,
)
SERVICE = _closed(
    rayClusterDeletionDelaySeconds=WHOLE,
    serveService=ANY,
    upgradeStrategy=ANY,
    managedBy=TEXT,
    serveConfigV2=TEXT,
    rayClusterConfig=CLUSTER,
    excludeHeadPodFromServeSvc=YES,
)
KUBERAY = {"RayCluster": CLUSTER, "RayJob": JOB, "RayService": SERVICE}
