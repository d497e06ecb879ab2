"""A small server that says on demand what a healthy Ray does not: 401, 500 for a known id, 404 after a restart."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "right"


class JobsApi(ThreadingHTTPServer):
    """The Jobs API as Ray 2.60 answers: with a token only, a known id with 500 and a traceback, an unknown with 404.

    Attributes:
        jobs: by submission id; a test sets their `status`.
        log: what every job printed.
        lose_answers: jobs are taken, but the connection ends before the answer.
        away: no request is answered.
        broken: every job is refused with 500.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs: dict[str, dict] = {}
        self.log = ""
        self.lose_answers = False
        self.away = False
        self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: JobsApi

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}"))

    def answer(self, sent: dict) -> None:
        if self.server.away:
            return self.hang_up()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply(401, "Unauthorized: Missing authentication token")
        job_id, action = [*self.path.split("/"), ""][3:5]
        if not job_id:
            return self.submit(sent)
        if (job := self.server.jobs.get(job_id)) is None:
            return self.reply(404, f"Job {job_id} does not exist")
        if action == "logs":
            return self.reply(200, {"logs": self.server.log})
        if action == "stop":
            job["status"] = "STOPPED"
        return self.reply(200, job)

    def submit(self, sent: dict) -> None:
        job_id = sent["submission_id"]
        if self.server.broken or job_id in self.server.jobs:
            return self.reply(500, f"Traceback …\nValueError: Job with submission_id {job_id} already exists.")
        self.server.jobs[job_id] = {"status": "RUNNING", "message": "", "driver_exit_code": None, **sent}
        if self.server.lose_answers:
            return self.hang_up()
        return self.reply(200, {"submission_id": job_id})

    def hang_up(self) -> None:
        self.close_connection = True

    def reply(self, status: int, body: object) -> None:
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
