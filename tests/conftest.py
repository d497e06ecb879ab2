"""What the whole session shares: one Ray head, started when the first test asks for it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pinloom.ray_cluster import Head, connect, local_head
from pinloom.settings import RaySettings, Settings

pytest_plugins = ("tests.airflow_fixtures", "tests.s3_fixtures")


def pytest_configure() -> None:
    """Where there is no GPU Triton interprets its kernels; it decides when the first of all tests imports it."""
    if not Path("/dev/nvidia0").exists():
        os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory) -> Iterator[Head]:
    """The session's head with 8 logical CPUs; this process is connected to it.

    Its variables are in the environment while it lives, so that `get_settings()`, subprocesses and jobs reach it.
    """
    import ray

    with local_head(Settings(home=tmp_path_factory.mktemp("ray"), ray=RaySettings(token=None))) as head:
        before = dict(os.environ)
        os.environ.update(head.env)
        connect(Settings())
        try:
            yield head
        finally:
            ray.shutdown()
            os.environ.clear()
            os.environ.update(before)
