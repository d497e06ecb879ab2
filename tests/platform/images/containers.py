"""Containers as a pod of the chart runs them: one network, its user, a read-only root, volumes where it has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.helm.chart import Object

IMAGES = {part: os.environ.get(f"PINLOOM_IMAGE_{part.upper()}", f"pinloom-{part}:0.1.0") for part in ("airflow", "ray")}


def docker(*args: str, timeout_s: float = 300.0) -> str:
    """
    Raises:
        AssertionError: it failed; with what it said.
    """
    done = subprocess.run(["docker", *args], capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"docker {' '.join(args)[:300]}\n{(done.stdout + done.stderr)[-3000:]}"
    return done.stdout.strip()


def missing() -> str:
    """What is not here to run the images; '' when all is."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        return "no docker daemon answers"
    lacking = [
        i for i in IMAGES.values() if subprocess.run(["docker", "image", "inspect", i], capture_output=True).returncode
    ]
    return f"no image {', '.join(lacking)}: run platform/images/build.sh" if lacking else ""


@dataclass
class Pod:
    """Containers that share one loopback network and nothing else."""

    name: str
    containers: list[str] = field(default_factory=list)

    def start(self, image: str, command: list[str], env: dict[str, str], mounts: dict[str, str]) -> str:
        """Start a container under the restricted profile; returns its id."""
        options = ["--detach", "--network", f"container:{self.name}", "--user", "1000:1000", "--read-only"]
        options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--shm-size", "512m"]
        for path, volume in mounts.items():
            options += (
                ["--volume", f"{volume}:{path}"] if volume else ["--tmpfs", f"{path}:uid=1000,gid=1000,mode=0755,exec"]
            )
        for key, value in env.items():
            options += ["--env", f"{key}={value}"]
        # A pod's `command` takes the place of the entry point, `args` that of the command; the images have neither.
        found = docker("run", *options, image, *command)
        self.containers.append(found)
        return found

    def run(
        self, image: str, command: list[str], env: dict[str, str], mounts: dict[str, str], timeout_s: float = 300
    ) -> str:
        """Start a container and wait for its end; returns its log."""
        container = self.start(image, command, env, mounts)
        code = docker("wait", container, timeout_s=timeout_s)
        log = logs(container)
        assert code == "0", log[-3000:]
        return log


def logs(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
    return done.stdout + done.stderr


@contextmanager
def pod() -> Iterator[Pod]:
    name = f"pinloom-test-{uuid.uuid4().hex[:8]}"
    docker("run", "--detach", "--name", name, "--network", "none", IMAGES["airflow"], "sleep", "3600")
    it = Pod(name)
    try:
        yield it
    finally:
        subprocess.run(["docker", "rm", "--force", *it.containers, name], capture_output=True)


def holds(container: str, probe: dict[str, Any], ports: list[Object], timeout_s: float) -> None:
    """Until a probe of the chart succeeds inside the container.

    Raises:
        AssertionError: not in time, or the container has ended; with the end of its log.
    """
    command = probe_command(probe, ports)
    deadline = time.monotonic() + timeout_s
    while subprocess.run(["docker", "exec", container, *command], capture_output=True).returncode:
        running = docker("inspect", "--format", "{{.State.Running}}", container) == "true"
        if not running or time.monotonic() > deadline:
            raise AssertionError(f"{command}\n{logs(container)[-4000:]}")
        time.sleep(1)


def probe_command(probe: dict[str, Any], ports: list[Object]) -> list[str]:
    if "exec" in probe:
        return list(probe["exec"]["command"])
    get = probe["httpGet"]
    port = next(p["containerPort"] for p in ports if p["name"] == get["port"])
    headers = [f"--header={h['name']}: {h['value']}" for h in get.get("httpHeaders", [])]
    return ["wget", "--tries", "1", "-T", "20", "-q", "-O-", *headers, f"http://127.0.0.1:{port}{get['path']}"]
