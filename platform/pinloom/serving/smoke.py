"""Does a deployment answer? Asked over HTTP, as a caller would."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import requests

from pinloom.settings import ServingSettings

TIMEOUT_S = 30.0
POLL_S = 1.0


class SmokeFailed(RuntimeError):
    """The endpoint answers wrongly; the message says what was asked and what came."""


class Endpoint:
    """A served data set at `url`, with the key of the settings."""

    def __init__(self, url: str, serving: ServingSettings) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {serving.api_key.get_secret_value()}"} if serving.api_key else {}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of the answer.

        Raises:
            SmokeFailed: no answer, or not 200.
        """
        try:
            answer = requests.request(method, self.url + path, json=body, headers=self._headers, timeout=TIMEOUT_S)
        except requests.RequestException as e:
            raise SmokeFailed(f"{method} {path}: {e}") from e
        if answer.status_code != 200:
            raise SmokeFailed(f"{method} {path} answered {answer.status_code}: {answer.text[:1000]}")
        return answer.json()


def _require(endpoint: Endpoint, deployment: str) -> None:
    running = {m["deployment"] for m in endpoint.call("GET", "/v1/models")}
    if running != {deployment}:
        raise SmokeFailed(f"deployment {', '.join(sorted(running))} answers instead of {deployment}")


def _until(deadline: float, ask: Callable[[], Any]) -> Any:
    """What is answered, asked for until the deadline."""
    while True:
        try:
            return ask()
        except SmokeFailed:
            if time.monotonic() >= deadline:
                raise
        time.sleep(POLL_S)


def smoke_test(endpoint: Endpoint, deployment: str, user_id: str, settle_s: float = 0.0) -> None:
    """Recommend to a real user, rank what came, and see that it is this deployment that answers with finite scores.

    Args:
        settle_s: how long nobody, another deployment, or one that is still slow may answer.

    Raises:
        SmokeFailed: otherwise.
    """
    deadline = time.monotonic() + settle_s
    _until(deadline, lambda: _require(endpoint, deployment))
    wanted = {"user_id": user_id, "k": 10}
    found = _until(deadline, lambda: endpoint.call("POST", "/v1/recommendations", wanted))["ranked"]
    if not found:
        raise SmokeFailed(f"user {user_id} gets no recommendation")
    body = {"user_id": user_id, "candidates": [item["item_id"] for item in found]}
    for item in _until(deadline, lambda: endpoint.call("POST", "/v1/rank", body))["ranked"]:
        scores = [item["score"], *item["heads"].values()]
        if not all(isinstance(s, float) and math.isfinite(s) for s in scores):
            raise SmokeFailed(f"user {user_id}, item {item['item_id']}: scores {scores} are not finite")
