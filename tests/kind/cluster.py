"""The cluster under test: the one of PINLOOM_KUBECONFIG, or a kind cluster made for the test."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinloom.ports import free_port
from tests.helm.tool import tool

ROOT = Path(__file__).parents[2]
NAMESPACE = "pinloom-test"
KUBERAY_REPO = "https://ray-project.github.io/kuberay-helm/"
KUBERAY_VERSION = "1.6.2"
TAG = "test"
AWAY = re.compile(
    r"connection refused|was refused|connection reset|TLS handshake timeout|i/o timeout|unexpected EOF|etcdserver|"
    r"Client\.Timeout|request timed out|ServiceUnavailable|too many requests",
    re.IGNORECASE,
)
"""What kubectl says when the API server does not answer just now."""
NO_FINALIZERS = '{"metadata": {"finalizers": null}}'


def say(text: str) -> None:
    print(f"\nkind: {text}", flush=True)


@dataclass(frozen=True)
class Cluster:
    """kubectl and helm on one cluster, in the namespace of the test.

    Attributes:
        kubeconfig: of the cluster.
        mine: whether the test made it, and so loads images and deletes it.
    """

    kubeconfig: Path
    mine: bool

    def run(self, *command: str, timeout_s: float = 900.0, stdin: str | None = None, patience_s: float = 0.0) -> str:
        """What a command printed.

        Args:
            patience_s: how long the API server may not answer, as on a node that is busy.

        Raises:
            AssertionError: it failed; with what it said.
        """
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        deadline = time.monotonic() + patience_s
        while True:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=env, input=stdin)
            away = done.returncode and AWAY.search(done.stderr)
            if not away or time.monotonic() > deadline:
                break
            time.sleep(3)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def kubectl(self, *args: str, patience_s: float = 180.0, **kwargs: Any) -> str:
        return self.run(tool("kubectl"), "--namespace", NAMESPACE, *args, patience_s=patience_s, **kwargs)

    def helm(self, *args: str, **kwargs: Any) -> str:
        return self.run(tool("helm"), "--namespace", NAMESPACE, *args, **kwargs)

    def get(self, kind: str, name: str = "", selector: str = "") -> Any:
        """One object, or the list of those with a label."""
        args = [kind, *([name] if name else []), *(["--selector", selector] if selector else [])]
        found = json.loads(self.kubectl("get", *args, "--output", "json"))
        return found if name else found["items"]

    def secret(self, name: str, key: str) -> str:
        return self.kubectl(
            "get", "secret", name, "--output", f'go-template={{{{index .data "{key}" | base64decode}}}}'
        )

    def has_kuberay(self) -> bool:
        """Whether its operator runs, in any namespace; installed by Helm, or by Kustomize."""
        labels = ("app.kubernetes.io/name=kuberay-operator", "app.kubernetes.io/component=kuberay-operator")
        pods = ["get", "pods", "--all-namespaces", "--output", "name", "--selector"]
        return self.exists("crd", "rayservices.ray.io") and any(self.kubectl(*pods, label).strip() for label in labels)

    def exists(self, kind: str, name: str) -> bool:
        return bool(self.kubectl("get", kind, name, "--ignore-not-found", "--output", "name").strip())

    @contextmanager
    def forward(self, service: str, port: int) -> Iterator[str]:
        """URL of a port of a service, on this machine: kubectl leads to one pod, and anew when that one goes."""
        local = free_port()
        forward = [tool("kubectl"), "--namespace", NAMESPACE, "port-forward", f"service/{service}", f"{local}:{port}"]
        process = subprocess.Popen(
            ["sh", "-c", 'while :; do "$@"; sleep 1; done', "sh", *forward],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            start_new_session=True,
        )
        try:
            wait_until(lambda: listens(local), 300, f"kubectl port-forward service/{service}", poll_s=0.5)
            yield f"http://127.0.0.1:{local}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(10)

    def diagnose(self) -> str:
        """Pods, events, what each container does or died of, and the ends of the logs."""
        parts = [
            self.try_kubectl(*args)
            for args in (
                ["get", "pods,rayservices,rayjobs,rayclusters,jobs,pvc", "--output", "wide"],
                ["get", "events", "--sort-by", ".lastTimestamp"],
                ["describe", "nodes"],
            )
        ]
        for pod in json.loads(self.try_kubectl("get", "pods", "--output", "json") or '{"items": []}')["items"]:
            for container in containers(pod):
                parts.append(f"--- {pod['metadata']['name']} {container['name']}: {state(container)}")
                log = ["logs", pod["metadata"]["name"], "--container", container["name"], "--tail", "60"]
                parts.append(self.try_kubectl(*log))
                if container.get("restartCount"):
                    parts.append(f"before it was started again:\n{self.try_kubectl(*log, '--previous')}")
        return "\n".join(parts)

    def try_kubectl(self, *args: str) -> str:
        """What it printed, or what it said when it failed."""
        try:
            return self.kubectl(*args, timeout_s=60, patience_s=0.0)
        except (AssertionError, subprocess.TimeoutExpired) as e:
            return "" if "json" in args else str(e)


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Their statuses, those of init containers first."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def state(container: dict[str, Any]) -> str:
    """What it does, how often it was started again, and what it died of then (`OOMKilled`, for one)."""
    said = [f"{k} {v}" for k, v in container.get("state", {}).items()]
    last = container.get("lastState", {}).get("terminated")
    restarts = container.get("restartCount", 0)
    return ", ".join([*said, f"{restarts} restarts", *([f"the last time {last}"] if last else [])])


def wait_until(holds: Callable[[], bool], timeout_s: float, what: str, poll_s: float = 3.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not after {timeout_s:.0f} s"
        time.sleep(poll_s)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def missing() -> str:
    """What is not here to test on a cluster; '' when all is."""
    given = os.environ.get("PINLOOM_KUBECONFIG")
    lacking = [] if given else [name for name in ("kind", "docker") if shutil.which(name) is None]
    if lacking:
        return f"no cluster: {' and '.join(lacking)} not on the PATH, and PINLOOM_KUBECONFIG is not set"
    if not given and subprocess.run(["docker", "info"], capture_output=True).returncode:
        return "no cluster: docker's daemon does not answer, and PINLOOM_KUBECONFIG is not set"
    for name in ("helm", "kubectl"):
        try:
            tool(name)
        except RuntimeError as e:
            return f"no {name}: {' '.join(str(e).split())[:200]}"
    return ""


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    given = os.environ.get("PINLOOM_KUBECONFIG")
    if given:
        say(f"skips making a cluster: PINLOOM_KUBECONFIG={given}")
        found = Cluster(Path(given).resolve(), mine=False)
        say(found.run(tool("kubectl"), "get", "nodes,storageclasses", "--output", "wide", timeout_s=120))
        yield found
        return
    kubeconfig = folder / "kubeconfig"
    config = str(ROOT / "platform" / "kind" / "cluster.yaml")
    subprocess.run(["kind", "create", "cluster", "--config", config, "--kubeconfig", str(kubeconfig)], check=True)
    try:
        yield Cluster(kubeconfig, mine=True)
    finally:
        if os.environ.get("KEEP") == "1":
            say(f"the cluster stays: export KUBECONFIG={kubeconfig}")
        else:
            subprocess.run(
                ["kind", "delete", "cluster", "--name", "pinloom", "--kubeconfig", str(kubeconfig)], check=True
            )


def images(on: Cluster) -> list[str]:
    """`--set` arguments for the images: the given ones, else built here; loaded into a cluster of our own."""
    chosen = {part: os.environ.get(f"PINLOOM_IMAGE_{part.upper()}") for part in ("airflow", "ray", "postgres", "redis")}
    if on.mine and not (chosen["airflow"] and chosen["ray"]):
        subprocess.run([str(ROOT / "platform/images/build.sh")], env={**os.environ, "TAG": TAG}, check=True)
        chosen |= {part: f"pinloom-{part}:{TAG}" for part in ("airflow", "ray")}
    else:
        say(f"skips building images: uses {chosen}; None is the chart's own name")
    settings = []
    for part, image in chosen.items():
        if image:
            if on.mine:
                subprocess.run(["kind", "load", "docker-image", image, "--name", "pinloom"], check=True)
            settings += ["--set-string", _named(part, image)]
            if part == "postgres" and "alpine" in image:
                settings += ["--set", "postgres.uid=70"]
    return settings


def _named(part: str, image: str) -> str:
    """Values for `repository:tag`; a registry may have a port, and the tag may be left out."""
    repository, _, tag = image.rpartition(":") if ":" in image.rsplit("/", 1)[-1] else (image, "", "latest")
    return f"images.{part}.repository={repository},images.{part}.tag={tag}"


def install_kuberay(on: Cluster) -> None:
    if on.has_kuberay():
        say("skips installing KubeRay's operator: the cluster runs it")
        return
    chart = os.environ.get("PINLOOM_KUBERAY_CHART")
    source = [chart] if chart else ["kuberay-operator", "--repo", KUBERAY_REPO, "--version", KUBERAY_VERSION]
    on.helm("upgrade", "--install", "kuberay-operator", *source, "--wait", "--timeout", "10m")


def fresh_namespace(on: Cluster) -> None:
    """Empty, whatever an earlier run that was broken off left."""
    if on.exists("namespace", NAMESPACE):
        say(f"removes the namespace {NAMESPACE} of an earlier run")
        remove_namespace(on)
    on.run(tool("kubectl"), "create", "namespace", NAMESPACE)


def remove_namespace(on: Cluster) -> None:
    """RayJobs wait for KubeRay's word (a finalizer), whose operator goes with the namespace."""
    kinds = [kind for kind in ("rayjobs", "rayservices", "rayclusters") if on.exists("crd", f"{kind}.ray.io")]
    for kind in kinds:
        on.kubectl("delete", kind, "--all", "--wait=false")
    for job in on.get("rayjobs") if kinds else ():
        free = ["patch", "rayjob", job["metadata"]["name"], "--type=merge", "--patch", NO_FINALIZERS]
        on.try_kubectl(*free)
    on.helm("uninstall", "kuberay-operator", "--ignore-not-found")
    on.run(tool("kubectl"), "delete", "namespace", NAMESPACE, "--timeout=600s")
