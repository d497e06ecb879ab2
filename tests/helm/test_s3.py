"""A pod's environment reaches a lake on an S3-compatible server (moto's, over HTTP)."""

import os
import subprocess
import sys

from s3fs import S3FileSystem

from tests.helm.chart import environment, render

WRITE = """
from pinloom.lake import Lake
from pinloom.settings import Settings

lake = Lake(f"{Settings().lake_root}/shop")
assert lake.create(lake.path("a"), b"first")
assert not lake.create(lake.path("a"), b"second")
assert lake.read_bytes(lake.path("a")) == b"first"
"""


def test_the_environment_of_a_jobs_head_opens_the_lake(s3_bucket):
    found = render(
        lake__url=f"{s3_bucket}/team",
        s3__endpoint=os.environ["AWS_ENDPOINT_URL"],
        s3__accessKeyId="anyone",
        s3__secretAccessKey="anything",
    )
    (container,) = found.rayjobs()["default.yaml"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"][
        "containers"
    ]
    env = environment(found, container, {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]})
    done = subprocess.run([sys.executable, "-c", WRITE], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert S3FileSystem().cat_file("lakes/team/shop/a") == b"first"
    assert "lake" not in {volume["name"] for _, pod in found.pod_templates() for volume in pod["spec"]["volumes"]}
