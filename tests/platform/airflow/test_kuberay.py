"""The KubeRay backend and the operator on it, against played back statuses."""

import logging
from collections.abc import Iterator
from threading import Timer

import pytest
import yaml
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from pinloom.airflow.jobs import Job, JobsError, JobsRefused, JobState, JobStatus, JobsUnauthorized, JobsUnreachable
from pinloom.airflow.kuberay import KubeRayJobs, load_template, merged
from pinloom.airflow.operator import RayJobOperator
from pinloom.airflow.rayjob_status import status_of, waiting
from pinloom.settings import Settings, get_settings
from tests.kubernetes_api import NAMESPACE, KubernetesApi, kubernetes_api, token_file
from tests.platform.airflow import rayjob_statuses as s
from tests.platform.airflow.test_operator import MADE, Context

JOB = Job(
    "job", "pinloom step train", env={"PINLOOM_DATASET": "shop"}, metadata={"dag": "train", "run": "manual__2026 1"}
)
TEMPLATE = {
    "kind": "RayJob",
    "spec": {
        "submissionMode": "HTTPMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 300,
        "rayClusterSpec": {"rayVersion": "2.60.0", "headGroupSpec": {"rayStartParams": {"num-cpus": "1"}}},
    },
}


@pytest.fixture
def cluster() -> Iterator[KubernetesApi]:
    with kubernetes_api() as server:
        yield server


@pytest.fixture(autouse=True)
def _settings(cluster, monkeypatch, tmp_path):
    folder = tmp_path / "rayjobs"
    folder.mkdir()
    (folder / "default.yaml").write_text(yaml.safe_dump(TEMPLATE))
    monkeypatch.setenv("PINLOOM_HOME", str(tmp_path))
    monkeypatch.setenv("PINLOOM_AIRFLOW__BACKEND", "kuberay")
    monkeypatch.setenv("PINLOOM_KUBERNETES__URL", f"http://{cluster.address}")
    monkeypatch.setenv("PINLOOM_KUBERNETES__NAMESPACE", NAMESPACE)
    monkeypatch.setenv("PINLOOM_KUBERNETES__TOKEN_FILE", str(token_file(tmp_path)))
    monkeypatch.setenv("PINLOOM_KUBERNETES__RAYJOBS", str(folder))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def jobs(**spec) -> KubeRayJobs:
    return KubeRayJobs(Settings(), "train", spec)


def operator(**kwargs) -> RayJobOperator:
    with DAG("dag"):
        return RayJobOperator(task_id="task", steps=["train"], poll_interval_s=0.02, outlets=[MADE], **kwargs)


def run(cluster: KubernetesApi, *statuses, context=None, **kwargs) -> str:
    cluster.statuses["*"] = list(statuses)
    return operator(**kwargs).execute(context or Context())


# What is sent


def test_the_spec_passes_through_and_only_the_jobs_own_fields_are_filled_in(cluster):
    head = {"rayStartParams": {"num-gpus": "1"}, "serviceType": "NodePort"}
    jobs(preRunningDeadlineSeconds=60, rayClusterSpec={"headGroupSpec": head}).submit(JOB)
    sent = cluster.rayjobs()["job"]
    assert sent["spec"] == {
        "submissionMode": "HTTPMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 300,
        "preRunningDeadlineSeconds": 60,
        "rayClusterSpec": {
            "rayVersion": "2.60.0",
            "headGroupSpec": {"rayStartParams": {"num-cpus": "1", "num-gpus": "1"}, "serviceType": "NodePort"},
        },
        "entrypoint": "pinloom step train",
        "runtimeEnvYAML": "env_vars:\n  PINLOOM_DATASET: shop\n",
        "metadata": {"dag": "train", "run": "manual__2026 1"},
    }
    assert sent["metadata"]["labels"]["pinloom.io/run"] == "manual__2026-1"
    assert sent["metadata"]["annotations"]["pinloom.io/run"] == "manual__2026 1"


def test_a_step_with_a_template_of_its_own_takes_it(tmp_path):
    (tmp_path / "default.yaml").write_text("kind: RayJob\nspec: {backoffLimit: 0}")
    (tmp_path / "train.yaml").write_text("kind: RayJob\nspec: {backoffLimit: 1}")
    assert load_template(tmp_path, "train")["spec"] == {"backoffLimit": 1}
    assert load_template(tmp_path, "ingest")["spec"] == {"backoffLimit": 0}
    assert load_template(None, "ingest") == {}
    (tmp_path / "default.yaml").write_text("kind: Pod")
    with pytest.raises(JobsRefused, match="is no RayJob"):
        load_template(tmp_path, "ingest")
    with pytest.raises(JobsRefused, match=r"neither ingest\.yaml nor default\.yaml"):
        load_template(tmp_path / "empty", "ingest")


def test_lists_are_replaced_when_specs_are_merged():
    assert merged({"a": [1, 2], "b": {"c": 1, "d": 2}}, {"a": [3], "b": {"c": 4}}) == {"a": [3], "b": {"c": 4, "d": 2}}


def test_the_templates_environment_stays(cluster):
    jobs(runtimeEnvYAML="working_dir: /x\nenv_vars: {A: '1'}").submit(JOB)
    sent = yaml.safe_load(cluster.rayjobs()["job"]["spec"]["runtimeEnvYAML"])
    assert sent == {"working_dir": "/x", "env_vars": {"A": "1", "PINLOOM_DATASET": "shop"}}


# Where Kubernetes says no


def test_a_job_that_exists_is_attached_to(cluster):
    jobs().submit(JOB)
    jobs(backoffLimit=3).submit(JOB)
    assert "backoffLimit" not in cluster.rayjobs()["job"]["spec"]


def test_a_cluster_without_kuberay_and_a_refused_spec_are_not_tried_again(cluster):
    cluster.invalid = 'RayJob.ray.io "job" is invalid: spec.submissionMode: Unsupported value'
    with pytest.raises(JobsRefused, match="Unsupported value"):
        jobs().submit(JOB)
    cluster.kuberay = False
    with pytest.raises(JobsRefused, match=r"the cluster does not know /apis/ray\.io/v1"):
        jobs().submit(JOB)
    with pytest.raises(AirflowFailException, match="the cluster does not know"):
        operator().execute(Context())


def test_missing_rights_are_named(cluster, tmp_path):
    (tmp_path / "token").write_text("another")
    with pytest.raises(JobsUnauthorized, match="service account needs rights on rayjobs"):
        jobs().submit(JOB)


def test_a_token_that_was_replaced_is_read_again(cluster, tmp_path):
    backend = jobs()
    (tmp_path / "token").write_text("expired")
    with pytest.raises(JobsUnauthorized):
        backend.status("job")
    token_file(tmp_path)
    assert backend.status("job").state == JobState.MISSING


def test_an_api_server_that_is_away_may_be_back_in_a_moment(cluster):
    cluster.away = True
    with pytest.raises(JobsUnreachable, match=cluster.address):
        jobs().status("job")
    Timer(0.3, setattr, (cluster, "away", False)).start()
    assert run(cluster, *s.SUCCESS)


def test_outside_a_cluster_it_says_what_to_set(monkeypatch):
    monkeypatch.delenv("PINLOOM_KUBERNETES__URL")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(JobsError, match="PINLOOM_KUBERNETES__URL"):
        jobs()


# What a status means


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (s.NEW, "PENDING"),
        (s.INITIALIZING, "PENDING"),
        (s.at("Waiting"), "PENDING"),
        (s.at("Suspended"), "PENDING"),
        (s.SUBMITTED, "PENDING"),
        (s.PENDING, "PENDING"),
        (s.RETRYING, "PENDING"),
        (s.RUNNING, "RUNNING"),
        (s.COMPLETE, "SUCCEEDED"),
        (s.SUBMITTER_LATE, "SUCCEEDED"),
        (s.at("Complete", "STOPPED"), "STOPPED"),
        (s.APP_FAILED, "FAILED"),
        (s.DEADLINE, "FAILED"),
        (s.SUBMISSION_FAILED, "FAILED"),
        (s.INVALID, "FAILED"),
        (s.at("Complete"), "FAILED"),
    ],
)
def test_job_and_deployment_status_are_taken_together(status, state):
    assert status_of({"metadata": {}, "status": status}).state == state


def test_the_exit_code_is_taken_from_rays_message():
    assert status_of({"metadata": {}, "status": s.APP_FAILED}).exit_code == 2
    assert status_of({"metadata": {}, "status": s.COMPLETE}).exit_code == 0
    assert status_of({"metadata": {}, "status": s.DEADLINE}).exit_code is None


# The operator on it


def test_the_whole_way_to_success(cluster, capsys):
    address = {"dashboardURL": cluster.address}
    cluster.logs["job-abcde"] = "epoch 1\nepoch 2\n"
    uri = run(cluster, *s.SUCCESS[:-2], s.RUNNING | address, s.RUNNING | address, s.COMPLETE | address)
    (name,) = cluster.rayjobs()
    assert uri.endswith(f"/results/{name}.json")
    told = capsys.readouterr().out
    assert told.count("epoch 1") == told.count("epoch 2") == 1


def test_the_name_is_the_tasks_own_and_fits_kuberay(cluster):
    run(cluster, *s.SUCCESS)
    run(cluster, *s.SUCCESS)
    first, second = cluster.rayjobs()
    assert first[:-1] == second[:-1]
    assert first.endswith("-1")
    assert second.endswith("-2")
    with DAG("a-very-long-name-of-a-dag-that-somebody-chose"):
        task = RayJobOperator(task_id="and-a-task-of-it", steps=["train"])
    context = Context()
    context["ti"].dag_id, context["ti"].task_id = task.dag_id, task.task_id
    assert len(task.submit_job(context)) <= 47


def test_a_retry_attaches_to_the_running_job(cluster):
    context = Context()
    cluster.statuses["*"] = [s.RUNNING, s.RUNNING, s.COMPLETE]
    operator().submit_job(context)
    assert operator().execute(context)
    assert len(cluster.rayjobs()) == 1


def test_a_refused_spec_is_not_retried(cluster):
    with pytest.raises(AirflowFailException, match="one of RayClusterSpec or ClusterSelector must be set"):
        run(cluster, s.NEW, s.INVALID)


def test_the_users_mistake_is_not_retried_when_the_cluster_and_its_log_are_gone(cluster):
    with pytest.raises(AirflowFailException, match="no such column"):
        run(cluster, s.INITIALIZING, s.RUNNING, s.APP_FAILED)


@pytest.mark.parametrize(
    ("status", "says"),
    [(s.DEADLINE, "DeadlineExceeded: The RayJob has passed"), (s.SUBMISSION_FAILED, "BackoffLimitExceeded")],
)
def test_other_failures_are_retried(cluster, status, says):
    with pytest.raises(AirflowException, match=says) as caught:
        run(cluster, s.INITIALIZING, status)
    assert not isinstance(caught.value, AirflowFailException)


def test_a_missing_image_ends_the_wait_at_once(cluster):
    cluster.pods = [
        s.pod("job-x7k2p-head-1", waiting="ImagePullBackOff", message='Back-off pulling image "pinloom-ray:0.1"')
    ]
    with pytest.raises(AirflowFailException, match=r"cannot start .* pinloom-ray:0\.1: ImagePullBackOff"):
        run(cluster, s.INITIALIZING, pending_timeout_s=60)
    (job,) = cluster.rayjobs().values()
    assert "deletionTimestamp" in job["metadata"]


@pytest.mark.parametrize(
    ("said", "hopeless"),
    [
        ("failed to sync configmap cache: timed out waiting for the condition", False),
        ('secret "rec" not found', True),
    ],
)
def test_a_kubelet_that_is_behind_is_waited_for(said, hopeless):
    pod = s.pod("job-x7k2p-head-1", waiting="CreateContainerConfigError", message=said)
    assert waiting([pod], JobStatus(JobState.PENDING)).hopeless is hopeless


def test_the_first_failed_pull_is_waited_for(cluster):
    cluster.pods = [s.pod("job-x7k2p-head-1", waiting="ErrImagePull")]
    assert run(cluster, s.INITIALIZING, s.INITIALIZING, s.RUNNING, s.COMPLETE)


def test_what_cannot_be_scheduled_ends_with_the_schedulers_reason_and_its_events_are_in_the_log(cluster, caplog):
    reason = "0/1 nodes are available: 1 Insufficient cpu."
    cluster.pods = [s.pod("job-x7k2p-head-1", unschedulable=reason)]
    cluster.events = [
        s.event("u1", "Pod", "job-x7k2p-head-1", "FailedScheduling", reason),
        s.event("u2", "Pod", "other", "Other", "x"),
    ]
    with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException, match="1 Insufficient cpu"):
        run(cluster, s.INITIALIZING, pending_timeout_s=0.3)
    told = [r.getMessage() for r in caplog.records if "FailedScheduling" in r.getMessage()]
    assert told == [f"Pod job-x7k2p-head-1: FailedScheduling. {reason}"]
    assert "Other" not in caplog.text


def test_a_job_that_was_deleted_underneath_fails_the_try_and_the_next_sends_it_again(cluster):
    context = Context()
    with pytest.raises(AirflowException, match="it was deleted"):
        run(cluster, s.INITIALIZING, s.RUNNING, s.GONE, context=context)
    cluster.statuses.clear()
    assert run(cluster, *s.SUCCESS, context=context)


def test_a_kill_deletes_the_rayjob_and_a_new_task_takes_another(cluster):
    cluster.statuses["*"] = [s.RUNNING]
    task = operator()
    Timer(0.3, task.on_kill).start()
    with pytest.raises(AirflowException, match="was stopped with its task"):
        task.execute(Context("failed"))
    (job,) = cluster.rayjobs().values()
    assert "deletionTimestamp" in job["metadata"]
    run(cluster, s.COMPLETE)
    assert len(cluster.rayjobs()) == 2


def test_an_eviction_leaves_the_rayjob_alone(cluster):
    cluster.statuses["*"] = [s.RUNNING]
    task = operator()
    Timer(0.3, task.on_kill).start()
    with pytest.raises(AirflowException, match="goes on"):
        task.execute(Context("running"))
    assert "DELETE" not in {method for method, _ in cluster.requests}


@pytest.mark.parametrize(
    ("mode", "labels"),
    [("K8sJobMode", {"job-name": "job"}), ("SidecarMode", {"ray.io/cluster": s.CLUSTER, "ray.io/node-type": "head"})],
)
def test_the_submitters_log_is_the_jobs(cluster, mode, labels):
    backend = jobs(submissionMode=mode)
    backend.submit(JOB)
    cluster.statuses["job"] = [s.RUNNING]
    assert backend.logs("job") == ""
    cluster.pods = [s.pod("submitter", labels=labels)]
    assert backend.logs("job") == ""
    cluster.logs["submitter"] = "epoch 1\n"
    assert backend.logs("job") == "epoch 1\n"
    cluster.away = True
    assert backend.logs("job") == "epoch 1\n"
