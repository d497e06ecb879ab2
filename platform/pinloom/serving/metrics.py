"""What the replicas count. Ray adds up nothing: it exports each replica's series with its tags, for Prometheus to sum.

Every node of the cluster exports its replicas at its metrics port; `GET /metrics` relays the one that answered.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import requests
from fastapi import Request, Response
from ray.serve.metrics import Counter, Histogram

SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
SIZES = [1, 10, 50, 100, 200, 500, 1000, 2000]


class Metrics:
    """Exported with the prefix `ray_`; a no-op where Ray does not run."""

    def __init__(self) -> None:
        by_route = ("path", "method", "status")
        self.requests = Counter("pinloom_requests", "Requests answered", by_route)
        self.seconds = Histogram("pinloom_request_seconds", "Time to answer", SECONDS, ("path", "method"))
        self.candidates = Histogram("pinloom_candidates", "Candidates scored in one model call", SIZES)
        self.unknown_users = Counter("pinloom_unknown_users", "Rankings for users without a history")
        self.unknown_items = Counter("pinloom_unknown_items", "Candidates that are not in the snapshot")
        self.actions = Counter("pinloom_actions", "Actions landed")

    async def measure(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Middleware: count and time every request under its route's template, not its path."""
        began = time.perf_counter()
        status = 500
        try:
            response = await call_next(request)
            status = response.status_code
            return response
        finally:
            path = getattr(request.scope.get("route"), "path", "(none)")
            self.requests.inc(1, tags={"path": path, "method": request.method, "status": str(status)})
            self.seconds.observe(time.perf_counter() - began, tags={"path": path, "method": request.method})

    def scored(self, candidates: int, unknown_items: int, unknown_user: bool) -> None:
        self.candidates.observe(candidates)
        if unknown_items:
            self.unknown_items.inc(unknown_items)
        if unknown_user:
            self.unknown_users.inc(1)


def node_metrics() -> str | None:
    """The Prometheus text of this node's exporter, or None outside Ray."""
    import ray

    if not ray.is_initialized():
        return None
    here = ray.get_runtime_context().get_node_id()
    node = next(n for n in ray.nodes() if n["NodeID"] == here)
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    response = requests.get(url, timeout=5)
    response.raise_for_status()
    return response.text
