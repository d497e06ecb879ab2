"""What cannot work is refused, with what to do."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tests.helm.chart import CHART, NAMESPACE, RELEASE, Refused, render
from tests.helm.tool import tool


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"redis__enabled": False}, "set redis.url"),
        ({"mlflow__enabled": False}, "set mlflow.uri"),
        ({"postgres__enabled": False}, "airflow.database.url"),
        ({"postgres__enabled": False, "airflow__enabled": False}, "mlflow.database.url"),
        ({"lake__url": "gs://bucket"}, "must begin with s3://"),
        ({"secrets__apiKey": "short"}, "16 characters"),
        ({"airflow__scheduler__replicas": 2}, "KubernetesExecutor"),
        ({"airflow__dags__gitSync__enabled": True}, "gitSync.repo"),
        ({"ingress__enabled": True, "gateway__enabled": True}, "choose one"),
        ({"gateway__enabled": True}, "parentRefs"),
        ({"serving__workerGroups__workers__minReplicas": 9}, "minReplicas is above"),
        ({"serving__minReplicas": 9}, "serving.minReplicas"),
    ],
)
def test_impossible_combinations(settings, says):
    with pytest.raises(Refused, match=says):
        render(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"servign__enabled": True},
        {"airflow__apiserver__replicas": 1},
        {"serving__workerGroups": {"workers": {"gpu": 1}}},
        {"airflow__executor": "CeleryExecutor"},
        {"images__ray__pullPolicy": "Sometimes"},
        {"serving__maxReplicas": "four"},
        {"serving__maxReplicas": -1},
    ],
)
def test_misspelt_values(settings):
    with pytest.raises(Refused, match=r"values don't meet|additional properties|values.schema|schema"):
        render(**settings)


def test_a_cluster_without_kuberay():
    with pytest.raises(Refused, match="helm install kuberay-operator"):
        render(kuberay=False)
    render(kuberay=False, requireKubeRay=False)


class NoKubeRay(BaseHTTPRequestHandler):
    """What a bare API server answers while helm renders: `helm template` looks nothing up, `helm install` does."""

    answers: ClassVar = {
        "/version": {"major": "1", "minor": "30", "gitVersion": "v1.30.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {
            "kind": "APIResourceList",
            "groupVersion": "v1",
            "resources": [{"name": "secrets", "kind": "Secret", "namespaced": True, "verbs": ["get", "list"]}],
        },
        f"/api/v1/namespaces/{NAMESPACE}/secrets": {"kind": "SecretList", "apiVersion": "v1", "items": []},
    }

    def do_GET(self) -> None:
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        found = self.answers.get(self.path.partition("?")[0], missing)
        body = json.dumps(found).encode()
        self.send_response(404 if found is missing else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def no_kuberay() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), NoKubeRay) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_installation_without_kuberay(no_kuberay, tmp_path):
    command = [tool("helm"), "install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-apiserver", no_kuberay]
    env = {"HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "none"), "NO_PROXY": "*"}
    done = subprocess.run([*command, "--dry-run=server"], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode != 0
    assert "helm install kuberay-operator" in done.stderr, done.stderr
