"""`helm test`: read a user's history from the online store, and rank for that user."""

import json
import math
import os
import sys
import time
import urllib.error
import urllib.request

URL, TIMEOUT_S = sys.argv[1], float(sys.argv[2])
KEY = os.environ.get("PINLOOM_SERVING__API_KEY", "")


def call(path, body=None):
    """The answer, asked for until the service is there."""
    deadline = time.monotonic() + TIMEOUT_S
    data = None if body is None else json.dumps(body).encode()
    while True:
        request = urllib.request.Request(URL + path, data, {"X-API-Key": KEY, "Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as e:
            if (e.code < 500 and e.code != 408) or time.monotonic() > deadline:
                sys.exit(
                    f"{path} answered {e.code}: {e.read()[:500]!r}. Is a model deployed? See the notes of the chart."
                )
        except OSError as e:
            if time.monotonic() > deadline:
                sys.exit(f"nothing answers at {URL}{path}: {e}")
        time.sleep(2)


users = call("/v1/users")
user = (users["users"] if isinstance(users, dict) else users)[0]
user_id = user["user_id"] if isinstance(user, dict) else user
history = call(f"/v1/users/{user_id}?limit=5")
print("history of", user_id, json.dumps(history)[:300])
found = call("/v1/recommendations", {"user_id": user_id, "k": 5})["ranked"]
ranked = call("/v1/rank", {"user_id": user_id, "candidates": [item["item_id"] for item in found]})["ranked"]
scores = [item["score"] for item in ranked]
assert len(scores) == len(found) > 0, "nothing was ranked"
assert all(math.isfinite(score) for score in scores), scores
assert scores == sorted(scores, reverse=True), scores
print("ranked", json.dumps(ranked)[:300])
