"""The whole platform on a real cluster. The tests run in this order and go on from one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests

from pinloom.demo.__main__ import OVERRIDES
from tests.kind.airflow_api import Airflow
from tests.kind.cluster import NAMESPACE, say, wait_until
from tests.kind.conftest import ANOTHER_SETTING, CHAIN, READY_S, RELEASE, SERVE, Installation

pytestmark = [pytest.mark.kind, pytest.mark.timeout(7200)]
CHAIN_S, SCALE_S = 5400.0, 1500.0
SERVING = "pinloom.io/ray=serving"
LOAD, ENOUGH = Path(__file__).with_name("load.py"), "/tmp/enough"


def test_all_parts_become_ready(installed: Installation):
    for part in ("postgres", "redis", "mlflow", "airflow-scheduler", "airflow-dag-processor"):
        wait_until(lambda part=part: installed.ready(part), READY_S, f"{part} is ready")
    # Workers are ready when there is something to serve.
    wait_until(lambda: installed.ready("ray-serving,ray.io/node-type=head"), READY_S, "the head that serves is ready")


def test_a_chain_of_rayjobs_brings_a_model_from_the_log_to_the_endpoint(installed: Installation, airflow: Airflow):
    first, end = installed.interval
    airflow.trigger("ingest", {"start": str(first), "stop": str(end)})
    wait_until(lambda: ended(airflow, "deploy"), CHAIN_S, "the DAG `deploy` has run", poll_s=10)
    jobs = installed.cluster.get("rayjobs")
    say(f"RayJobs: {[(j['metadata']['name'], j.get('status', {}).get('jobStatus')) for j in jobs]}")
    done = {task_of(j) for j in jobs if j.get("status", {}).get("jobStatus") == "SUCCEEDED"}
    assert done == {
        ("ingest", "ingest"),
        ("features", "features"),
        ("train_transact", "train"),
        ("train_transact", "evaluate_promote"),
        ("deploy", "deploy"),
    }
    log = airflow.log("deploy", airflow.succeeded("deploy")[0], "deploy")
    assert "deploy: started" in log, log[-3000:]
    installed.known["served"] = True


def task_of(rayjob: dict) -> tuple[str, str]:
    labels = rayjob["metadata"]["labels"]
    return labels["pinloom.io/dag"], labels["pinloom.io/task"]


def ended(airflow: Airflow, dag_id: str) -> bool:
    """Raises when any run of the chain failed, with what its tasks said."""
    for dag in CHAIN:
        for run in airflow.runs(dag):
            assert run["state"] != "failed", f"{dag}:\n{airflow.failures(dag, run['dag_run_id'])}"
    return bool(airflow.succeeded(dag_id))


@pytest.mark.usefixtures("served")
def test_helm_test_scores_a_user_and_reads_a_feature(installed: Installation):
    say(installed.cluster.helm("test", RELEASE, "--logs", "--timeout", "10m")[-2000:])


@pytest.mark.usefixtures("served")
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


def start_load(installed: Installation, name: str, threads: int) -> None:
    """A pod that asks from inside the cluster: a port-forward ends with the one pod that it leads to."""
    test = installed.cluster.get("pod", f"{RELEASE}-test-score")
    spec = {k: test["spec"][k] for k in ("securityContext", "volumes")}
    container = {k: test["spec"]["containers"][0][k] for k in ("image", "imagePullPolicy", "env", "securityContext")}
    url = f"http://{SERVE}.{NAMESPACE}.svc:8000"
    container |= {
        "name": "load",
        "command": ["python", "-c", LOAD.read_text(), url, "3600", str(threads), ENOUGH],
        # Without a request it would get what the serving pods leave, and they would have nothing to do.
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/instance": RELEASE, "app.kubernetes.io/component": "test"},
        },
        "spec": {
            **spec,
            "volumes": [v for v in spec["volumes"] if "emptyDir" in v],
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }
    installed.cluster.kubectl("delete", "pod", name, "--ignore-not-found")
    installed.cluster.kubectl("apply", "--filename", "-", stdin=json.dumps(pod))
    wait_until(lambda: phase(installed, name) != "Pending", 300, f"{name} runs")


def phase(installed: Installation, name: str) -> str:
    return str(installed.cluster.get("pod", name)["status"]["phase"])


def end_load(installed: Installation, name: str) -> dict:
    """What came of it."""
    assert phase(installed, name) == "Running", installed.cluster.kubectl("logs", name)[-2000:]
    installed.cluster.kubectl("exec", name, "--", "touch", ENOUGH)
    wait_until(lambda: phase(installed, name) in ("Succeeded", "Failed"), 600, f"{name} has ended")
    log = installed.cluster.kubectl("logs", name)
    assert phase(installed, name) == "Succeeded", log[-2000:]
    result = json.loads(log.strip().splitlines()[-1])
    say(f"{name}: {result}")
    return result


def workers(installed: Installation) -> list[str]:
    pods = installed.cluster.get("pods", selector=f"{SERVING},ray.io/node-type=worker")
    return [p["metadata"]["name"] for p in pods if not p["metadata"].get("deletionTimestamp")]


@pytest.mark.usefixtures("served")
def test_load_brings_a_second_pod_and_a_killed_one_costs_no_request(installed: Installation):
    def two_serve() -> bool:
        return len(workers(installed)) >= 2 and installed.ready("ray-serving")

    start_load(installed, "load-kill", 32)
    wait_until(two_serve, SCALE_S, "two serving pods")
    victim = workers(installed)[0]
    installed.cluster.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    wait_until(lambda: victim not in workers(installed) and two_serve(), SCALE_S, "two serving pods again")
    result = end_load(installed, "load-kill")
    # Each request is sent until it is answered: a client with retries loses none.
    assert result["answered"] > 0
    assert result["models"] == [installed.known["model"]]
    assert result["slowest_s"] < 240


@pytest.mark.usefixtures("served")
def test_a_killed_task_goes_on_with_its_rayjob(installed: Installation, airflow: Airflow):
    """The scheduler's pod runs the tasks (LocalExecutor): without it the task is lost, the RayJob is not."""
    deployed = len(airflow.succeeded("deploy"))
    before = training_jobs(installed)
    run_id = airflow.trigger("train_transact", {"overrides": {**OVERRIDES["transact"], "epochs": 3}})

    def fresh() -> dict[str, str]:
        return {name: status for name, status in training_jobs(installed).items() if name not in before}

    wait_until(lambda: "RUNNING" in fresh().values(), SCALE_S, "the training's RayJob runs")
    (job,) = fresh()
    installed.cluster.kubectl(
        "delete", "pod", "--selector", "app.kubernetes.io/component=airflow-scheduler", "--grace-period=0", "--force"
    )
    wait_until(
        lambda: airflow.state("train_transact", run_id) in ("success", "failed"), CHAIN_S, "the run has ended", 10
    )
    assert airflow.state("train_transact", run_id) == "success", airflow.failures("train_transact", run_id)
    (task,) = (t for t in airflow.tasks("train_transact", run_id) if t["task_id"] == "train")
    say(f"{task['try_number']} tries, RayJobs {fresh()}")
    assert task["try_number"] > 1
    assert set(fresh()) == {job}
    # The new model's deployment follows by itself, and the next tests want to be alone.
    wait_until(lambda: len(airflow.succeeded("deploy")) > deployed, CHAIN_S, "`deploy` has run", poll_s=10)


def training_jobs(installed: Installation) -> dict[str, str]:
    jobs = installed.cluster.get("rayjobs", selector="pinloom.io/dag=train_transact,pinloom.io/task=train")
    return {j["metadata"]["name"]: j.get("status", {}).get("jobStatus", "") for j in jobs}


@pytest.mark.usefixtures("served")
def test_an_upgrade_of_the_release_keeps_what_is_served(installed: Installation):
    before = installed.cluster.get("rayservice", RELEASE)
    secret = installed.cluster.get("secret", RELEASE)["data"]
    installed.upgrade(*ANOTHER_SETTING)
    after = installed.cluster.get("rayservice", RELEASE)
    assert after["spec"]["serveConfigV2"] == before["spec"]["serveConfigV2"]
    assert installed.cluster.get("secret", RELEASE)["data"] == secret
    installed.cluster.helm("test", RELEASE, "--timeout", "10m")


@pytest.mark.usefixtures("served")
def test_a_new_deployment_takes_over_under_load(installed: Installation, airflow: Airflow):
    """Another setting is another deployment; the gate may keep the model that it serves."""
    wait_until(lambda: installed.ready("airflow-scheduler"), READY_S, "the scheduler is ready")
    start_load(installed, "load-roll", 2)
    served = installed.cluster.get("rayservice", RELEASE)["spec"]["serveConfigV2"]
    run_id = airflow.trigger("deploy")
    wait_until(lambda: airflow.state("deploy", run_id) in ("success", "failed"), 2400, "`deploy` has run", poll_s=10)
    result = end_load(installed, "load-roll")
    assert airflow.state("deploy", run_id) == "success", airflow.failures("deploy", run_id)
    assert installed.cluster.get("rayservice", RELEASE)["spec"]["serveConfigV2"] != served
    # A node of two cores may be slow while a job and a replica start on it; nobody is turned away.
    assert set(result["failed"]) <= {"slow"}


@pytest.mark.usefixtures("served")
def test_without_load_the_second_pod_goes(installed: Installation):
    """Serve waits ten minutes before it takes a replica away, then the idle worker's minute."""
    wait_until(lambda: len(workers(installed)) == 1, 2400, "one serving pod", poll_s=10)


def test_uninstall_leaves_only_what_is_documented(installed: Installation):
    installed.cluster.helm("uninstall", RELEASE, "--wait", "--timeout", "10m")
    selector = f"app.kubernetes.io/instance={RELEASE}"
    serving = f"{selector},{SERVING}"
    wait_until(lambda: not installed.cluster.get("pods", selector=serving), 600, "no serving pod")
    kinds = "deployments,statefulsets,services,configmaps,serviceaccounts,roles,rolebindings,rayservices,rayclusters"
    assert [o["metadata"]["name"] for o in installed.cluster.get(kinds, selector=selector)] == []
    kept = {f"{RELEASE}-lake", f"data-{RELEASE}-postgres-0", f"data-{RELEASE}-redis-0"}
    wait_until(lambda: claims(installed) == kept, 300, f"of the claims {kept} stay")
    assert [o["metadata"]["name"] for o in installed.cluster.get("secrets", selector=selector)] == [RELEASE]
    jobs = installed.cluster.get("rayjobs", selector="app.kubernetes.io/managed-by=pinloom")
    say(f"stay: {sorted(kept)}, the Secret {RELEASE} and {len(jobs)} ended RayJobs, as docs/kubernetes.md says")


def claims(installed: Installation) -> set[str]:
    return {c["metadata"]["name"] for c in installed.cluster.get("persistentvolumeclaims")}
