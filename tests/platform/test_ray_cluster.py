"""Processes reach the head that they were told of, and it leaves nothing behind."""

import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from components.errors import UserError
from pinloom import ray_cluster as ray_cluster_module
from pinloom.ports import free_port
from pinloom.ray_cluster import local_head
from pinloom.settings import RaySettings, Settings


@pytest.mark.cluster
def test_the_head_has_the_logical_cpus_of_the_settings_not_the_machines(ray_cluster):
    import ray

    assert ray.cluster_resources()["CPU"] == RaySettings().logical_cpus


@pytest.mark.cluster
def test_the_jobs_api_answers_nobody_without_the_token(ray_cluster):
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(f"{ray_cluster.jobs_url}/api/jobs/", timeout=10)
    assert e.value.code == 401


@pytest.mark.cluster
def test_another_process_reaches_the_head_through_its_environment(ray_cluster):
    code = "from pinloom.settings import Settings; from pinloom.ray_cluster import connect; import ray;"
    code += "connect(Settings()); print('cpus', ray.cluster_resources()['CPU'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | ray_cluster.env, capture_output=True, text=True, check=True
    )
    assert f"cpus {float(RaySettings().logical_cpus)}" in done.stdout


def test_an_address_where_nobody_answers_is_the_users_mistake():
    code = "from pinloom.settings import Settings; from pinloom.ray_cluster import connect; connect(Settings())"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PINLOOM_"))}
    env["PINLOOM_RAY__ADDRESS"] = f"127.0.0.1:{free_port()}"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert f"{UserError.__name__}: no Ray cluster answers at 127.0.0.1" in done.stderr


def test_a_head_that_does_not_come_up_is_tried_again_and_then_said_with_its_log(tmp_path, monkeypatch):
    script = f"echo tried >> {tmp_path}/tries; echo the disk is full; exit 1"
    monkeypatch.setattr(ray_cluster_module, "_head_command", lambda *_: ["sh", "-c", script])
    with pytest.raises(UserError, match="the disk is full"), local_head(Settings(home=tmp_path)):
        pytest.fail("it never came up")
    assert (tmp_path / "tries").read_text().count("tried") == ray_cluster_module.ATTEMPTS
