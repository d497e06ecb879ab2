"""The REST backend, where Ray says no: 401, 500 for a known id, 404, silence."""

import pytest

from pinloom.airflow.jobs import Job, JobsError, JobState, JobsUnauthorized, JobsUnreachable
from pinloom.airflow.ray_jobs import RayJobs
from tests.platform.airflow.jobs_api import TOKEN

JOB = Job("ingest-1", "pinloom step ingest", env={"PINLOOM_HOME": "/data"})


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_refused_token_says_what_to_set(api, token):
    for talk in (RayJobs(api.url, token).submit, lambda job: RayJobs(api.url, token).status(job.submission_id)):
        with pytest.raises(JobsUnauthorized, match="PINLOOM_RAY__TOKEN"):
            talk(JOB)
    assert not api.jobs


def test_a_known_id_is_attached_to(api):
    jobs = RayJobs(api.url, TOKEN)
    jobs.submit(JOB)
    jobs.submit(JOB)
    assert jobs.status("ingest-1").state == JobState.RUNNING
    assert api.jobs["ingest-1"]["runtime_env"] == {"env_vars": {"PINLOOM_HOME": "/data"}}


def test_a_job_whose_answer_was_lost_is_attached_to(api):
    api.lose_answers = True
    RayJobs(api.url, TOKEN).submit(JOB)
    assert list(api.jobs) == ["ingest-1"]


def test_a_ray_that_takes_no_job_is_an_error_with_its_words(api):
    api.broken = True
    with pytest.raises(JobsError, match="500: Traceback"):
        RayJobs(api.url, TOKEN).submit(JOB)


def test_a_restarted_ray_misses_the_job(api):
    assert RayJobs(api.url, TOKEN).status("ingest-1").state == JobState.MISSING
    assert RayJobs(api.url, TOKEN).logs("ingest-1") == ""


def test_nobody_there_is_unreachable(api):
    url = api.url
    api.shutdown()
    api.server_close()
    with pytest.raises(JobsUnreachable, match=url):
        RayJobs(url, TOKEN).status("ingest-1")
