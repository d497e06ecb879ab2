"""What a small and busy node needs: room for all that may run at once, and patience."""

from __future__ import annotations

from typing import Any

import pytest

from pinloom.ray_cluster import QUIET
from tests.helm.chart import CASES, Object, Rendered, render

NAME = "rec-pinloom"
WAIT_FOR_GCS = {"cpu": "200m", "memory": "256Mi"}
"""KubeRay puts a container with these requests before that of every worker (`common/pod.go`)."""
OPERATOR_CPU, OPERATOR_GIB = 0.1, 0.5


@pytest.fixture(scope="module")
def small() -> Rendered:
    return render(CASES["small"])


def cores(text: str) -> float:
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)


def gib(text: str) -> float:
    return float(text.removesuffix("Mi")) / 1024 if text.endswith("Mi") else float(text.removesuffix("Gi"))


def requested(pod: Object, *before: dict[str, str], beside: tuple[dict[str, str], ...] = ()) -> tuple[float, float]:
    """CPUs and GiB that the scheduler counts: those that run beside one another, or the largest that runs before."""
    together = [*(c["resources"]["requests"] for c in pod["spec"]["containers"]), *beside]
    first = [*(c["resources"]["requests"] for c in pod["spec"].get("initContainers", [])), *before]
    cpu = max(sum(cores(r["cpu"]) for r in together), *(cores(r["cpu"]) for r in first), 0.0)
    memory = max(sum(gib(r["memory"]) for r in together), *(gib(r["memory"]) for r in first), 0.0)
    return cpu, memory


def pods(small: Rendered) -> list[tuple[float, float]]:
    """Every pod of the chart, one job, all serving workers."""
    found = [requested(o["spec"]["template"]) for kind in ("Deployment", "StatefulSet") for o in small.all(kind)]
    found.append(max(requested(o) for o in small.all("Pod")))  # Tests run one by one.
    for _, cluster in small.ray_clusters():
        scaler = (cluster["autoscalerOptions"]["resources"]["requests"],) if cluster["enableInTreeAutoscaling"] else ()
        found.append(requested(cluster["headGroupSpec"]["template"], beside=scaler))
        for group in cluster["workerGroupSpecs"]:
            found += [requested(group["template"], WAIT_FOR_GCS)] * group["maxReplicas"]
    return found


def test_the_small_values_fit_a_node_of_two_cpus_and_12_gib(small):
    """KubeRay's operator among it; Kubernetes itself needs room on the same node."""
    found = pods(small)
    assert sum(cpu for cpu, _ in found) + OPERATOR_CPU < 1.2
    assert sum(memory for _, memory in found) + OPERATOR_GIB < 12 - 0.5


def test_small_jobs_make_room_for_one_another(small):
    """A cluster that stays to be looked at holds the memory of the next job's."""
    assert small.rayjobs()["default.yaml"]["spec"]["ttlSecondsAfterFinished"] <= 30


@pytest.mark.parametrize("case", ["default", "small"])
def test_a_rollout_has_room_for_the_first_new_replica(case):
    """Serve ends an old replica when a new one runs: full groups would wait for one another for ever."""
    found = render(CASES[case])
    (settings,) = (o["data"] for o in found.all("ConfigMap") if o["metadata"]["name"].endswith("-settings"))
    groups = found.one("RayService", NAME)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    room = sum(g["maxReplicas"] * float(g["rayStartParams"]["num-cpus"]) for g in groups)
    replicas = int(settings["PINLOOM_SERVING__MAX_REPLICAS"]) + 1
    assert room >= replicas * float(settings["PINLOOM_SERVING__CPUS_PER_REPLICA"])


def test_probes_wait_for_a_busy_node():
    """A process that imports for a minute, or a shell that takes seconds to start, is not dead."""
    found = render(CASES["small"], airflow__triggerer__enabled=True)
    probes = 0
    for where, pod in found.pod_templates():
        for container in pod["spec"]["containers"]:
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                if kind in container:
                    probes += 1
                    check_patience(f"{where}: {kind}", kind, container[kind])
    assert probes > 10


def check_patience(where: str, kind: str, probe: dict[str, Any]) -> None:
    assert probe["timeoutSeconds"] >= 10, where
    if kind == "startupProbe":
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 600, where
    if kind == "livenessProbe":
        assert probe["periodSeconds"] * probe.get("failureThreshold", 3) >= 100, where


@pytest.mark.parametrize("case", ["default", "small", "shared-cluster"])
def test_ray_is_as_patient_in_a_pod_as_on_a_laptop(case):
    """Serve kills a proxy that is not ready after 5 s, and Ray starts a worker for each logical CPU, unless told."""
    names = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "RAY_prestart_worker_first_driver"}
    for where, cluster in render(CASES[case]).ray_clusters():
        for template in (cluster["headGroupSpec"]["template"], *(g["template"] for g in cluster["workerGroupSpecs"])):
            env = {e["name"]: e.get("value") for e in template["spec"]["containers"][0]["env"]}
            assert {name: env.get(name) for name in names} == {name: QUIET[name] for name in names}, where
            assert int(env["RAY_health_check_timeout_ms"] or 0) > 10_000, where


def test_a_serving_worker_is_asked_what_kuberay_asks(small):
    (group,) = small.one("RayService", NAME)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    said = container["readinessProbe"]["exec"]["command"][-1]
    assert "localhost:52365/api/local_raylet_healthz | grep success" in said
    assert "localhost:8000/-/healthz | grep success" in said


def test_mlflow_starts_no_further_processes(small):
    (container,) = small.one("Deployment", f"{NAME}-mlflow")["spec"]["template"]["spec"]["containers"]
    assert {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"} in container["env"]
