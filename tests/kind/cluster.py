"""The cluster under test: the one of PINLOOM_KUBECONFIG, or a kind cluster made for the test."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helm.tool import tool

ROOT = Path(__file__).parents[2]
NAMESPACE = "pinloom-test"
KUBERAY_REPO = "https://ray-project.github.io/kuberay-helm/"
KUBERAY_VERSION = "1.6.2"
TAG = "test"


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

    def run(self, *command: str, timeout_s: float = 900.0, stdin: str | None = None) -> str:
        """What a command printed.

        Raises:
            AssertionError: it failed; with what it said.
        """
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=env, input=stdin)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def kubectl(self, *args: str, **kwargs: Any) -> str:
        return self.run(tool("kubectl"), "--namespace", NAMESPACE, *args, **kwargs)

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

    def knows(self, kind: str) -> bool:
        return f"{kind}.ray.io" in self.run(tool("kubectl"), "get", "crd", "--output", "name")

    @contextmanager
    def forward(self, service: str, port: int) -> Iterator[str]:
        """URL of a port of a service, on this machine."""
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        command = [tool("kubectl"), "--namespace", NAMESPACE, "port-forward", f"service/{service}", f":{port}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, f"kubectl port-forward: {line}"
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()
            process.wait(10)

    def diagnose(self) -> str:
        """Pods, events and the ends of the logs of what does not run."""
        parts = []
        for args in (
            ["get", "pods,rayservices,rayjobs,rayclusters,jobs,pvc", "--output", "wide"],
            ["get", "events", "--sort-by", ".lastTimestamp"],
            ["describe", "nodes"],
        ):
            parts.append(self._try(*args))
        for pod in json.loads(self._try("get", "pods", "--output", "json") or '{"items": []}')["items"]:
            name = pod["metadata"]["name"]
            parts.append(f"--- {name}\n{self._try('logs', name, '--all-containers', '--tail', '60')}")
        return "\n".join(parts)

    def _try(self, *args: str) -> str:
        try:
            return self.kubectl(*args)
        except AssertionError as e:
            return "" if "json" in args else str(e)


def wait_until(holds: Callable[[], bool], timeout_s: float, what: str, poll_s: float = 3.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not after {timeout_s:.0f} s"
        time.sleep(poll_s)


def missing() -> str:
    """What is not here to test on a cluster; '' when all is."""
    if os.environ.get("PINLOOM_KUBECONFIG"):
        return ""
    lacking = [name for name in ("kind", "docker") if shutil.which(name) is None]
    if lacking:
        return f"no cluster: {' and '.join(lacking)} not on the PATH, and PINLOOM_KUBECONFIG is not set"
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        return "no cluster: docker's daemon does not answer, and PINLOOM_KUBECONFIG is not set"
    return ""


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    given = os.environ.get("PINLOOM_KUBECONFIG")
    if given:
        say(f"skips making a cluster: PINLOOM_KUBECONFIG={given}")
        yield Cluster(Path(given), mine=False)
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
    """`--set` arguments for the images: the given ones, else built here and loaded."""
    chosen = {part: os.environ.get(f"PINLOOM_IMAGE_{part.upper()}") for part in ("airflow", "ray", "postgres", "redis")}
    if on.mine and not (chosen["airflow"] and chosen["ray"]):
        subprocess.run([str(ROOT / "platform/images/build.sh")], env={**os.environ, "TAG": TAG}, check=True)
        for part in ("airflow", "ray"):
            chosen[part] = f"pinloom-{part}:{TAG}"
            subprocess.run(["kind", "load", "docker-image", f"pinloom-{part}:{TAG}", "--name", "pinloom"], check=True)
    else:
        say(f"skips building images: uses {chosen}; None is the chart's own name")
    settings = []
    for part, image in chosen.items():
        if image:
            repository, _, tag = image.rpartition(":")
            settings += ["--set-string", f"images.{part}.repository={repository},images.{part}.tag={tag}"]
    return settings


def install_kuberay(on: Cluster) -> None:
    chart = os.environ.get("PINLOOM_KUBERAY_CHART")
    if not chart and on.knows("rayservices"):
        say("skips installing KubeRay's operator: the cluster has it")
        return
    source = [chart] if chart else ["kuberay-operator", "--repo", KUBERAY_REPO, "--version", KUBERAY_VERSION]
    on.helm("upgrade", "--install", "kuberay-operator", *source, "--wait", "--timeout", "10m")
