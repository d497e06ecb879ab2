"""A small server that speaks the paths of the Kubernetes API that jobs and serving use, and plays back statuses.

It proves nothing of KubeRay or the chart: its statuses are those that KubeRay 1.6's controllers write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "service-account"
NAMESPACE = "ml"
Object = dict[str, Any]


class KubernetesApi(ThreadingHTTPServer):
    """One namespace.

    Attributes:
        objects: by (plural, name).
        statuses: of a RayJob by its name, one for each look at it, and the last one stays; `*` for those to come.
        pods, events: as they are listed.
        logs: of pods by name; of Ray jobs by submission id, as a head's dashboard gives them.
        kuberay: whether the cluster knows KubeRay's kinds.
        invalid: what the API server has against every new object.
        away: no request is answered.
        conflicts: so many patches meet somebody else's.
        controller: called with every object that was patched, as KubeRay's would be.
        requests: (method, path) of all.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[tuple[str, str], Object] = {}
        self.statuses: dict[str, list[Object]] = {}
        self.pods: list[Object] = []
        self.events: list[Object] = []
        self.logs: dict[str, str] = {}
        self.kuberay = True
        self.invalid = ""
        self.away = False
        self.conflicts = 0
        self.controller: Callable[[Object], None] = lambda patched: None
        self.requests: list[tuple[str, str]] = []
        self.lock = Lock()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def rayjobs(self) -> dict[str, Object]:
        return {name: o for (plural, name), o in self.objects.items() if plural == "rayjobs"}


class Handler(BaseHTTPRequestHandler):
    server: KubernetesApi

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PATCH = do_DELETE = do_GET

    def answer(self) -> None:
        url = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        with self.server.lock:
            self.server.requests.append((self.command, url.path))
            if self.server.away:
                self.close_connection = True
            elif url.path.startswith("/api/jobs/"):
                log = self.server.logs.get(url.path.split("/")[3])
                self.reply(*((200, {"logs": log}) if log is not None else (404, "no such job")))
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.refuse(403, "rayjobs.ray.io is forbidden: User cannot")
            else:
                self.kubernetes(url.path.split("/"), {k: v[0] for k, v in parse_qs(url.query).items()}, body)

    def kubernetes(self, path: list[str], query: dict[str, str], body: Object) -> None:
        at = path.index("namespaces")
        plural, name, below = [*path[at + 2 :], "", ""][:3]
        if "ray.io" in path and not self.server.kuberay:
            return self.refuse(404, "the server could not find the requested resource")
        if plural == "pods":
            return self.pods(name, below, query)
        if plural == "events":
            wanted = query["fieldSelector"].removeprefix("involvedObject.name=")
            return self.reply(200, {"items": [e for e in self.server.events if e["involvedObject"]["name"] == wanted]})
        if self.command == "POST":
            return self.create(plural, body)
        if (found := self.server.objects.get((plural, name))) is None:
            return self.refuse(404, f'{plural}.ray.io "{name}" not found')
        return {"GET": self.look, "PATCH": self.change, "DELETE": self.delete}[self.command](plural, name, found, body)

    def pods(self, name: str, below: str, query: dict[str, str]) -> None:
        if below == "log":
            log = self.server.logs.get(name)
            return self.reply(200, log) if log is not None else self.refuse(400, "container is waiting to start")
        wanted = set(query["labelSelector"].split(","))
        found = [p for p in self.server.pods if wanted <= {f"{k}={v}" for k, v in p["metadata"]["labels"].items()}]
        return self.reply(200, {"items": found})

    def create(self, plural: str, body: Object) -> None:
        name = body["metadata"]["name"]
        if self.server.invalid:
            return self.refuse(422, self.server.invalid)
        if (plural, name) in self.server.objects:
            return self.refuse(409, f'{plural}.ray.io "{name}" already exists')
        self.server.objects[plural, name] = body
        self.server.statuses.setdefault(name, list(self.server.statuses.get("*", [])))
        return self.reply(201, body)

    def look(self, plural: str, name: str, found: Object, body: Object) -> None:
        if sequence := self.server.statuses.get(name):
            found["status"] = sequence.pop(0) if len(sequence) > 1 else sequence[0]
            if found["status"] == {"deleted": True}:
                del self.server.objects[plural, name]
                return self.refuse(404, f'{plural}.ray.io "{name}" not found')
        return self.reply(200, found)

    def change(self, plural: str, name: str, found: Object, body: Object) -> None:
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        if self.server.conflicts:
            self.server.conflicts -= 1
            found["metadata"]["resourceVersion"] += "1"
        if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            return self.refuse(409, "the object has been modified; please apply your changes to the latest version")
        found["spec"] |= body["spec"]
        found["metadata"]["generation"] += 1
        found["metadata"]["resourceVersion"] += "1"
        self.server.controller(found)
        return self.reply(200, found)

    def delete(self, plural: str, name: str, found: Object, body: Object) -> None:
        # KubeRay's finalizer keeps a RayJob until the job is stopped.
        found["metadata"]["deletionTimestamp"] = "2026-11-22T05:00:00Z"
        return self.reply(200, found)

    def refuse(self, status: int, message: str) -> None:
        self.reply(status, {"kind": "Status", "status": "Failure", "code": status, "message": message})

    def reply(self, status: int, body: object) -> None:
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@contextmanager
def kubernetes_api() -> Iterator[KubernetesApi]:
    server = KubernetesApi()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def token_file(folder: Path) -> Path:
    path = folder / "token"
    path.write_text(TOKEN + "\n")
    return path
