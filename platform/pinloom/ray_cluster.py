"""How a process reaches Ray: the cluster that settings name, or a head of its own on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.errors import UserError
from pinloom.ports import free_port
from pinloom.settings import Settings

log = logging.getLogger("pinloom.ray")

CONNECT_TIMEOUT_S = 10.0
START_TIMEOUT_S = 90.0
ATTEMPTS = 3
STOP_TIMEOUT_S = 20.0
STARTED = "Ray runtime started."
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A stopped head waits this long for actors to leave, which those of Serve do not: there is no other node.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    # One idle worker per logical CPU would otherwise start with the first driver: seconds of real CPU each.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A proxy that is not ready after 5 s is killed while it still imports, and the deployment with it.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # Two cores under full load answer late; by default Ray takes a node that is silent for 25 s for dead.
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "10",
}


@dataclass(frozen=True)
class Head:
    """A running local head.

    Attributes:
        address: `host:port` for `ray.init` and RAY_ADDRESS.
        jobs_url: dashboard and Jobs API.
        token: bearer token of the Jobs API and of every connection.
        pid: of the process that keeps the head alive; ending it ends the cluster.
    """

    address: str
    jobs_url: str
    token: str
    pid: int

    @property
    def env(self) -> dict[str, str]:
        """What another process needs in its environment to reach this head and no other."""
        return {
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "PINLOOM_RAY__ADDRESS": self.address,
            "PINLOOM_RAY__JOBS_URL": self.jobs_url,
            "PINLOOM_RAY__TOKEN": self.token,
        }


def connect(settings: Settings) -> None:
    """Make this process a Ray driver; nothing when it already is one.

    `settings.ray.address` 'auto' means RAY_ADDRESS (set inside a Ray job) or the head running on this machine, and,
    when there is none, a head of this process alone that ends with it.

    Raises:
        UserError: an address was given and nobody answers there.
    """
    import ray

    if ray.is_initialized():
        return
    _authenticate(settings.ray.token.get_secret_value() if settings.ray.token else None)
    address = settings.ray.address if settings.ray.address != "auto" else os.environ.get("RAY_ADDRESS", "auto")
    if address != "auto":
        _require_listener(address)
    try:
        ray.init(address=address, configure_logging=False)
    except ConnectionError:
        os.environ.update(QUIET)
        log.info("no Ray is running here: starting a head with %d logical CPUs", settings.ray.logical_cpus)
        ray.init(
            address="local",
            num_cpus=settings.ray.logical_cpus,
            object_store_memory=settings.ray.object_store_bytes,
            include_dashboard=False,
            configure_logging=False,
        )


def _require_listener(address: str) -> None:
    """Ray itself would try a dead address for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as e:
        raise UserError(
            f"no Ray cluster answers at {address}", "start it, or set PINLOOM_RAY__ADDRESS=auto to use a local head"
        ) from e


def _authenticate(token: str | None) -> None:
    """Give this process the token. Ray reads its environment once, when imported, hence the refresh."""
    if token is None:
        return
    from ray import _raylet

    os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token})
    raylet: Any = _raylet
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def local_head(settings: Settings, jobs_port: int | None = None) -> Iterator[Head]:
    """Run a head with a dashboard and the Jobs API on free ports of 127.0.0.1; it and all its children end with it.

    Its files are in a folder of its own, so that several heads live on one machine and 'auto' of another process
    does not find this one: pass `Head.env` on.

    Raises:
        UserError: it did not come up (its log is quoted).
    """
    # Unix sockets allow about 100 characters of path.
    folder = Path(tempfile.mkdtemp(prefix="plray-", dir="/tmp"))
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield _start(settings, folder, jobs_port, started)
    finally:
        for process in started:
            _stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def _start(settings: Settings, folder: Path, jobs_port: int | None, started: list[subprocess.Popen[bytes]]) -> Head:
    """Start heads until one comes up: Ray gives its node 30 s, which a busy machine may not keep, and a port that was
    free may have been taken. Each process goes into `started`."""
    token = settings.ray.token.get_secret_value() if settings.ray.token else secrets.token_hex(16)
    log_file = settings.home / "ray-head.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        port, dashboard = free_port(), jobs_port or free_port()
        head = Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", token, 0)
        # Jobs, and actors of Ray's own that look for "the" cluster of the machine, inherit which one is meant.
        # And jobs run `pinloom`, which need not be on the PATH of whoever starts the head.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        env = os.environ | QUIET | head.env | {"PATH": path}
        command = _head_command(settings, folder / str(attempt), port, dashboard)
        with log_file.open("wb") as out:
            process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
        started.append(process)
        if _is_up(head, process, log_file):
            return replace(head, pid=process.pid)
        _stop(started.pop())
    tail = log_file.read_text(errors="replace")[-2000:]
    raise UserError(f"the Ray head did not come up:\n{tail}", f"see {log_file}")


def _head_command(settings: Settings, folder: Path, port: int, dashboard: int) -> list[str]:
    ray = str(Path(sys.executable).with_name("ray"))
    options = {
        "node-ip-address": "127.0.0.1",
        "port": port,
        "num-cpus": settings.ray.logical_cpus,
        "object-store-memory": settings.ray.object_store_bytes,
        "include-dashboard": "true",
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": free_port(),
        "ray-client-server-port": free_port(),
        "temp-dir": folder,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [ray, "start", "--head", "--block", "--disable-usage-stats", *flags]


def _is_up(head: Head, process: subprocess.Popen[bytes], log_file: Path) -> bool:
    """Wait until the head answers; False when it ended or took too long."""
    request = urllib.request.Request(f"{head.jobs_url}/api/jobs/", headers={"Authorization": f"Bearer {head.token}"})
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        # The dashboard answers before the node is up, and goes on answering for a while when the node never comes up.
        if STARTED in log_file.read_text(errors="replace"):
            with (
                suppress(urllib.error.URLError, ConnectionError, TimeoutError),
                urllib.request.urlopen(request, timeout=5),
            ):
                return True
        time.sleep(0.2)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the head and whatever it started: they share its session."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        log.warning("the Ray head did not end in %.0f s: killed", STOP_TIMEOUT_S)
    finally:
        _kill_group(process.pid)
        process.wait()


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
