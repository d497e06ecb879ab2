"""What a healthy Ray does not say on demand, said by a small server: 401, 500 for a known id, 404, silence."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pinloom.airflow.jobs import Job, JobsError, JobState, JobsUnauthorized, JobsUnreachable
from pinloom.airflow.ray_jobs import RayJobs

TOKEN = "right"


class JobsApi(ThreadingHTTPServer):
    """The Jobs API as Ray 2.60 answers: with a token only, a known id with 500 and a traceback, an unknown with 404."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs: dict[str, dict] = {}
        self.lose_answers = False
        self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: JobsApi

    def log_message(self, *args) -> None:
        pass

    def reply(self, status: int, body: object) -> None:
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def authorized(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.reply(401, "Unauthorized: Missing authentication token")
        return False

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        if not self.authorized():
            return
        job_id = sent["submission_id"]
        if self.server.broken or job_id in self.server.jobs:
            self.reply(500, f"Traceback …\nValueError: Job with submission_id {job_id} already exists.")
            return
        self.server.jobs[job_id] = {"status": "RUNNING", "message": "running", **sent}
        if self.server.lose_answers:
            self.close_connection = True
            self.connection.close()
        else:
            self.reply(200, {"submission_id": job_id})

    def do_GET(self) -> None:
        if not self.authorized():
            return
        job = self.server.jobs.get(self.path.split("/")[3])
        self.reply(200, job) if job else self.reply(404, "Job does not exist")


@pytest.fixture
def api() -> Iterator[JobsApi]:
    server = JobsApi()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


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
