"""A materialized small log, on SQLite and on a real Redis."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pinloom.datasets.spec import DatasetSpec
from pinloom.features.online import OnlineFeatures
from pinloom.lake import Lake, Manifest
from pinloom.settings import OnlineSettings, Settings
from tests.platform.features import small


@dataclass(frozen=True)
class World:
    lake: Lake
    settings: Settings
    spec: DatasetSpec
    features: Manifest
    online: Manifest

    def open(self) -> OnlineFeatures:
        return OnlineFeatures(self.settings, self.online)

    def materialize(self, **inputs: Manifest) -> World:
        from pinloom.steps.base import load_step, run_step

        step = load_step("materialize")
        online = run_step(step, lake=self.lake, settings=self.settings, spec=self.spec, inputs=inputs)
        return replace(self, online=online)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory) -> Iterator[str]:
    """`host:port` of a redis-server of this session."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    try:
        _await_port(port, deadline=time.monotonic() + 20)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _await_port(port: int, deadline: float) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> tuple[Lake, DatasetSpec, Manifest, Path]:
    """Lake with the features of all days but the last."""
    root = tmp_path_factory.mktemp("world")
    lake, settings = small.local(root)
    spec = small.spec()
    small.publish(lake, small.actions(), spec)
    return lake, spec, small.run(lake, settings, spec, "features", as_of=small.LAST), root


@pytest.fixture(params=["sqlite", "redis"])
def world(request, published, tmp_path) -> World:
    """Materialized into a store of this test alone."""
    lake, spec, features, _ = published
    online = OnlineSettings()
    if request.param == "redis":
        online = OnlineSettings(store="redis", redis_url=_empty(request.getfixturevalue("redis_server")))
    settings = Settings(home=tmp_path / "home", online=online)
    blank = World(lake, settings, spec, features, features)
    return blank.materialize(features=features)


def _empty(address: str) -> str:
    import redis

    host, port = address.split(":")
    redis.Redis(host=host, port=int(port)).flushall()
    return address
