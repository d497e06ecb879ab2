"""The whole platform on a real cluster. The tests run in this order and go on from one another."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import requests

from pinloom.demo.__main__ import OVERRIDES
from tests.helm.chart import CHART
from tests.kind.airflow_api import Airflow
from tests.kind.cluster import NAMESPACE, say, wait_until
from tests.kind.conftest import RELEASE, SERVE, Installation

pytestmark = [pytest.mark.kind, pytest.mark.timeout(5400)]
CHAIN_S = 3600.0
SERVING = "pinloom.io/ray=serving"
LOAD = Path(__file__).with_name("load.py")


def test_all_parts_become_ready(installed: Installation):
    for part in ("postgres", "redis", "mlflow", "airflow-scheduler", "airflow-dag-processor"):
        wait_until(lambda part=part: installed.ready(part), 900, f"{part} is ready")
    # Workers are ready when there is something to serve.
    wait_until(lambda: installed.ready("ray-serving,ray.io/node-type=head"), 900, "the head that serves is ready")


def test_a_chain_of_rayjobs_brings_a_model_from_the_log_to_the_endpoint(installed: Installation, airflow: Airflow):
    first, end = installed.interval
    airflow.trigger("ingest", {"start": str(first), "stop": str(end)})
    wait_until(lambda: ended(airflow, "deploy"), CHAIN_S, "the DAG `deploy` has run", poll_s=10)
    (run, *_) = [r for r in airflow.runs("deploy") if r["state"] == "success"]
    jobs = installed.cluster.get("rayjobs")
    say(f"RayJobs: {[(j['metadata']['name'], j['status'].get('jobStatus')) for j in jobs]}")
    assert all(j.get("status", {}).get("jobStatus") == "SUCCEEDED" for j in jobs)
    log = airflow.log("deploy", run["dag_run_id"], "deploy", 1)
    assert "answers at http" in log, log[-3000:]


def ended(airflow: Airflow, dag_id: str) -> bool:
    """Raises when any run of the chain failed."""
    for dag in ("ingest", "features", "train_transact", "deploy"):
        for run in airflow.runs(dag):
            assert run["state"] != "failed", f"{dag}: {airflow.tasks(dag, run['dag_run_id'])}"
    return any(run["state"] == "success" for run in airflow.runs(dag_id))


def test_helm_test_scores_a_user_and_reads_a_feature(installed: Installation):
    say(installed.cluster.helm("test", RELEASE, "--logs", "--timeout", "10m")[-2000:])


def test_a_ranking_over_http(installed: Installation):
    key = installed.cluster.secret(RELEASE, "api-key")
    with installed.cluster.forward(SERVE, 8000) as url:
        assert requests.get(f"{url}/v1/models", timeout=30).status_code == 401
        headers = {"X-API-Key": key}
        models = requests.get(f"{url}/v1/models", headers=headers, timeout=30).json()
        installed.known["model"] = models[0]["key"]
        body = {"user_id": "nobody", "candidates": ["1029743", "995242"]}
        ranked = requests.post(f"{url}/v1/rank", json=body, headers=headers, timeout=60).json()
        assert len(ranked["ranked"]) == 2
        assert ranked["unknown_user"] is True


def start_load(installed: Installation, name: str, seconds: int, threads: int) -> None:
    """A pod that asks from inside the cluster: a port-forward ends with the one pod that it leads to."""
    test = installed.cluster.get("pod", f"{RELEASE}-test-score")
    spec = {k: test["spec"][k] for k in ("securityContext", "volumes")}
    container = {k: test["spec"]["containers"][0][k] for k in ("image", "imagePullPolicy", "env", "securityContext")}
    url = f"http://{SERVE}.{NAMESPACE}.svc:8000"
    container |= {"name": "load", "command": ["python", "-c", LOAD.read_text(), url, str(seconds), str(threads)]}
    volumes = [v for v in spec["volumes"] if "emptyDir" in v]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/instance": RELEASE, "app.kubernetes.io/component": "test"},
        },
        "spec": {
            **spec,
            "volumes": volumes,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }
    installed.cluster.kubectl("delete", "pod", name, "--ignore-not-found")
    installed.cluster.kubectl("apply", "--filename", "-", stdin=json.dumps(pod))


def end_load(installed: Installation, name: str, timeout_s: float) -> dict:
    def phase() -> str:
        return installed.cluster.get("pod", name)["status"]["phase"]

    wait_until(lambda: phase() in ("Succeeded", "Failed"), timeout_s, f"{name} has ended")
    log = installed.cluster.kubectl("logs", name)
    assert phase() == "Succeeded", log[-2000:]
    result = json.loads(log.strip().splitlines()[-1])
    say(f"{name}: {result}")
    return result


def workers(installed: Installation) -> list[str]:
    pods = installed.cluster.get("pods", selector=f"{SERVING},ray.io/node-type=worker")
    return [p["metadata"]["name"] for p in pods if not p["metadata"].get("deletionTimestamp")]


def test_load_brings_a_second_pod_and_a_killed_one_costs_no_request(installed: Installation):
    start_load(installed, "load-kill", 600, 32)
    wait_until(lambda: len(workers(installed)) == 2 and installed.ready("ray-serving"), 500, "two serving pods")
    victim = workers(installed)[0]
    installed.cluster.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    result = end_load(installed, "load-kill", 1200)
    # Each request is sent until it is answered: a client with retries loses none.
    assert result["answered"] > 0
    assert result["models"] == [installed.known["model"]]
    assert result["slowest_s"] < 180
    installed.known["load ended"] = time.monotonic()


def test_a_killed_task_goes_on_with_its_rayjob(installed: Installation, airflow: Airflow):
    """The scheduler's pod runs the tasks (LocalExecutor): without it the task is lost, the RayJob is not."""
    before = {j["metadata"]["name"] for j in installed.cluster.get("rayjobs")}
    run_id = airflow.trigger("train_transact", {"overrides": {**OVERRIDES["transact"], "epochs": 3}})

    def running() -> list[str]:
        jobs = installed.cluster.get("rayjobs")
        return [
            j["metadata"]["name"]
            for j in jobs
            if j["metadata"]["name"] not in before and j.get("status", {}).get("jobStatus") == "RUNNING"
        ]

    wait_until(lambda: bool(running()), 1200, "the training's RayJob runs")
    (job,) = running()
    installed.cluster.kubectl(
        "delete", "pod", "--selector", "app.kubernetes.io/component=airflow-scheduler", "--grace-period=0", "--force"
    )
    wait_until(lambda: state(airflow, run_id) in ("success", "failed"), CHAIN_S, "the run has ended", poll_s=10)
    assert state(airflow, run_id) == "success", airflow.tasks("train_transact", run_id)
    (task,) = (t for t in airflow.tasks("train_transact", run_id) if t["task_id"] == "train")
    made = {j["metadata"]["name"] for j in installed.cluster.get("rayjobs")} - before
    trained = {name for name in made if name.startswith(job.rsplit("-", 2)[0] + "-")}
    say(f"tries {task['try_number']}, RayJobs {sorted(made)}")
    assert task["try_number"] > 1
    assert trained == {job}


def state(airflow: Airflow, run_id: str) -> str:
    return next(r["state"] for r in airflow.runs("train_transact") if r["dag_run_id"] == run_id)


def test_an_upgrade_of_the_release_keeps_what_is_served(installed: Installation):
    before = installed.cluster.get("rayservice", RELEASE)
    secret = installed.cluster.get("secret", RELEASE)["data"]
    installed.upgrade("--set", "serving.targetOngoingRequests=6.0")
    after = installed.cluster.get("rayservice", RELEASE)
    assert after["spec"]["serveConfigV2"] == before["spec"]["serveConfigV2"]
    assert installed.cluster.get("secret", RELEASE)["data"] == secret
    installed.cluster.helm("test", RELEASE, "--timeout", "10m")


def test_a_new_model_takes_over_under_load(installed: Installation, airflow: Airflow):
    """The gate may have kept the champion: then the deployment is new (another setting), the model is not."""
    start_load(installed, "load-roll", 240, 4)
    served = installed.cluster.get("rayservice", RELEASE)["spec"]["serveConfigV2"]
    wait_until(lambda: installed.ready("airflow-scheduler"), 600, "the scheduler is ready")
    runs = len([r for r in airflow.runs("deploy") if r["state"] == "success"])
    airflow.trigger("deploy")
    wait_until(
        lambda: len([r for r in airflow.runs("deploy") if r["state"] == "success"]) > runs,
        1200,
        "`deploy` has run",
        poll_s=10,
    )
    result = end_load(installed, "load-roll", 900)
    assert result["failed"] == 0
    assert installed.cluster.get("rayservice", RELEASE)["spec"]["serveConfigV2"] != served
    if result["models"] == [installed.known["model"]]:
        say("skips the look for a new model: the gate kept the champion")


def test_without_load_the_second_pod_goes(installed: Installation):
    """Serve waits ten minutes before it takes a replica away, then the idle worker's minute."""
    wait_until(lambda: len(workers(installed)) == 1, 1500, "one serving pod", poll_s=10)


def test_uninstall_leaves_only_what_is_documented(installed: Installation):
    installed.cluster.helm("uninstall", RELEASE, "--wait", "--timeout", "10m")
    selector = f"app.kubernetes.io/instance={RELEASE}"
    wait_until(
        lambda: not installed.cluster.get("pods", selector=f"{selector},pinloom.io/ray=serving"), 600, "no serving pod"
    )
    kinds = "deployments,statefulsets,services,configmaps,secrets,serviceaccounts,roles,rolebindings,rayservices"
    assert [o["metadata"]["name"] for o in installed.cluster.get(kinds, selector=selector)] == []
    claims = {c["metadata"]["name"] for c in installed.cluster.get("persistentvolumeclaims")}
    assert claims == {f"{RELEASE}-lake", f"data-{RELEASE}-postgres-0", f"data-{RELEASE}-redis-0"}
    jobs = installed.cluster.get("rayjobs", selector="app.kubernetes.io/managed-by=pinloom")
    say(f"stay: {sorted(claims)} and {len(jobs)} ended RayJobs, as docs/kubernetes.md says")
    assert (CHART.parents[1] / "docs" / "kubernetes.md").exists()
