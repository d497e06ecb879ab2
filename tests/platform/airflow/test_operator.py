"""The operator's decisions, one by one; Ray is a small server, Airflow's context a plain one."""

from datetime import UTC, datetime
from threading import Timer
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from pinloom.airflow.operator import RayJobOperator
from pinloom.settings import get_settings
from tests.platform.airflow.jobs_api import TOKEN, JobsApi

MADE = Asset("made")


class Store(dict):
    """Stands for `task_state_store`: outlives the task, also its success."""

    set = dict.__setitem__

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Context(dict):
    def __init__(self, state: str | None = "running", tries_left: int = 1, events: dict | None = None) -> None:
        ti = SimpleNamespace(
            dag_id="dag", task_id="task", run_id="run", map_index=-1, try_number=1, max_tries=tries_left, stats_tags={}
        )
        ti.get_task_states = lambda **_: {"run": {"task": state}} if state else {}
        outlets = {MADE: SimpleNamespace(extra={})}
        super().__init__(ti=ti, task_state_store=Store(), outlet_events=outlets, triggering_asset_events=events or {})


@pytest.fixture(autouse=True)
def _settings(api: JobsApi, monkeypatch, tmp_path):
    monkeypatch.setenv("PINLOOM_HOME", str(tmp_path))
    monkeypatch.setenv("PINLOOM_RAY__JOBS_URL", api.url)
    monkeypatch.setenv("PINLOOM_RAY__TOKEN", TOKEN)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def operator(**kwargs) -> RayJobOperator:
    with DAG("dag"):
        return RayJobOperator(task_id="task", steps=["validate"], poll_interval_s=0.05, outlets=[MADE], **kwargs)


def soon(api: JobsApi, status: str, after_s: float = 0.3, **fields) -> None:
    """All jobs that run then get this status."""

    def change() -> None:
        for job in api.jobs.values():
            if job["status"] == "RUNNING":
                job.update(status=status, **fields)

    Timer(after_s, change).start()


def run(api: JobsApi, context: Context, status: str = "SUCCEEDED", **kwargs) -> str:
    soon(api, status)
    return operator(**kwargs).execute(context)


def states(api: JobsApi) -> list[str]:
    return [job["status"] for job in api.jobs.values()]


def test_the_result_is_returned_and_carried_by_the_asset_event(api):
    context = Context()
    uri = run(api, context, outlet_extra={"covers": "then"})
    (job_id,) = api.jobs
    assert uri.endswith(f"/lake/completejourney/results/{job_id}.json")
    assert uri in api.jobs[job_id]["entrypoint"]
    assert context["outlet_events"][MADE].extra == {"result": uri, "dataset": "", "covers": "then"}


def test_the_data_set_goes_along_from_event_to_job_to_event(api):
    event = SimpleNamespace(
        timestamp=datetime(2026, 1, 1, tzinfo=UTC), extra={"result": "file:///r", "dataset": "shop"}
    )
    context = Context(events={MADE: [event]})
    uri = run(api, context)
    (job,) = api.jobs.values()
    assert "--inputs-from file:///r --dataset shop" in job["entrypoint"]
    assert "/lake/shop/results/" in uri
    assert context["outlet_events"][MADE].extra["dataset"] == "shop"
    assert "/lake/mine/results/" in run(api, Context(events={MADE: [event]}), dataset="mine")
    assert "/lake/completejourney/results/" in run(api, Context(events={MADE: [event]}), inputs_from=[])


def test_a_job_lost_in_a_restart_fails_the_try_and_is_sent_again_by_the_next(api):
    context = Context()
    Timer(0.3, api.jobs.clear).start()
    with pytest.raises(AirflowException, match="restarted"):
        operator().execute(context)
    assert run(api, context)
    assert states(api) == ["SUCCEEDED"]


def test_a_job_sent_by_a_worker_that_died_before_it_could_tell_is_attached_to(api):
    context = Context()
    operator().submit_job(context)
    context["task_state_store"].clear()
    assert run(api, context)
    assert states(api) == ["SUCCEEDED"]


def test_an_id_kept_by_a_worker_that_died_before_it_could_send_is_sent(api):
    context = Context()
    operator().submit_job(context)
    api.jobs.clear()
    assert run(api, context)
    assert states(api) == ["SUCCEEDED"]


def test_a_retry_after_success_takes_the_result_and_a_clear_runs_again(api):
    context = Context()
    operator().submit_job(context)
    next(iter(api.jobs.values()))["status"] = "SUCCEEDED"
    first = operator().execute(context)
    assert states(api) == ["SUCCEEDED"]
    second = run(api, context)
    assert states(api) == ["SUCCEEDED", "SUCCEEDED"]
    assert first != second


def test_a_refused_token_is_not_retried(api, monkeypatch):
    monkeypatch.setenv("PINLOOM_RAY__TOKEN", "wrong")
    get_settings.cache_clear()
    with pytest.raises(AirflowFailException, match="PINLOOM_RAY__TOKEN"):
        operator().execute(Context())


def test_a_password_in_a_url_is_not_retried_and_no_job_is_sent(api, monkeypatch):
    monkeypatch.setenv("PINLOOM_MLFLOW_URI", "postgresql://user:word@host")
    with pytest.raises(AirflowFailException, match="PINLOOM_MLFLOW_URI has a password"):
        operator().execute(Context())
    assert not api.jobs


def test_the_users_mistake_is_not_retried_but_a_bug_is(api):
    api.log = "pinloom: no such column\n  remedy: another\n"
    for code, error in ((2, AirflowFailException), (1, AirflowException)):
        soon(api, "FAILED", driver_exit_code=code)
        with pytest.raises(AirflowException, match="no such column") as caught:
            operator().execute(Context())
        assert type(caught.value) is error


def test_a_job_stopped_in_ray_is_a_failure(api):
    with pytest.raises(AirflowException, match="stopped in Ray"):
        run(api, Context(), "STOPPED")


@pytest.mark.parametrize(
    ("state", "tries_left", "ends_as"),
    [
        ("running", 1, "RUNNING"),  # an eviction: nobody told Airflow
        ("up_for_retry", 1, "RUNNING"),  # the scheduler lost the heartbeat and starts another try
        ("running", 0, "STOPPED"),  # an eviction, and no retry that would attach
        ("failed", 1, "STOPPED"),
        ("success", 1, "STOPPED"),
        ("restarting", 1, "STOPPED"),  # cleared
        (None, 1, "STOPPED"),  # its run was deleted
    ],
)
def test_whether_a_kill_stops_the_job_depends_on_who_killed(api, state, tries_left, ends_as):
    task = operator()
    Timer(0.3, task.on_kill).start()
    with pytest.raises(AirflowException, match="goes on" if ends_as == "RUNNING" else "stopped"):
        task.execute(Context(state, tries_left))
    assert states(api) == [ends_as]


def test_the_newest_event_of_each_asset_gives_the_inputs(api):
    def event(day: int, **extra):
        return SimpleNamespace(timestamp=datetime(2017, 1, day, tzinfo=UTC), extra=extra)

    events = {"a": [event(2, result="new"), event(1, result="old")], "b": [event(1)], "c": [event(1, result="other")]}
    run(api, Context(events=events))
    run(api, Context(events=events), inputs_from=["mine", ""])
    first, second = (job["entrypoint"].split() for job in api.jobs.values())
    assert [first[n + 1] for n, word in enumerate(first) if word == "--inputs-from"] == ["new", "other"]
    assert [second[n + 1] for n, word in enumerate(second) if word == "--inputs-from"] == ["mine"]


def test_a_ray_that_is_away_for_a_moment_is_waited_for_and_for_long_is_not(api):
    context = Context()
    operator().submit_job(context)
    api.away = True
    with pytest.raises(AirflowException, match=f"answers at {api.url}"):
        operator(unreachable_timeout_s=0.3).execute(context)
    Timer(0.3, setattr, (api, "away", False)).start()
    soon(api, "SUCCEEDED", after_s=0.6)
    assert operator(unreachable_timeout_s=30).execute(context)
    assert states(api) == ["SUCCEEDED"]
