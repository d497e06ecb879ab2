"""A lake on every kind of store: local disk, memory, and S3 (moto's server: real HTTP, conditional puts included)."""

import uuid

import pytest

from pinloom.lake import Lake


@pytest.fixture(params=["file", "memory", "s3"])
def lake(request, tmp_path) -> Lake:
    roots = {
        "file": lambda: f"file://{tmp_path}/lake",
        "memory": lambda: f"memory://{uuid.uuid4().hex}",
        "s3": lambda: f"{request.getfixturevalue('s3_bucket')}/{uuid.uuid4().hex}",
    }
    return Lake(roots[request.param]())


@pytest.fixture
def local_lake(tmp_path) -> Lake:
    return Lake(f"file://{tmp_path}/lake")
