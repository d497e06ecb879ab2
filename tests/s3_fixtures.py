"""One S3 server for the whole session (moto's: its buckets belong to the process, whoever asks)."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """URL of a bucket of an S3 server on this machine; its variables are in the environment while it runs."""
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
        AWS_ACCESS_KEY_ID="anyone",
        AWS_SECRET_ACCESS_KEY="anything",
        AWS_DEFAULT_REGION="us-east-1",
    )
    try:
        S3FileSystem().mkdir("lakes")
        yield "s3://lakes"
    finally:
        S3FileSystem.clear_instance_cache()
        os.environ.clear()
        os.environ.update(before)
        server.stop()
