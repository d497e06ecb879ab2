"""Runs in a pod: asks until a file is there, each request until it is answered; prints how that went.

python -c <this file> URL SECONDS THREADS FILE
"""

import collections
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request

URL, SECONDS, THREADS, FILE = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
HEADERS = {"X-API-Key": os.environ["PINLOOM_SERVING__API_KEY"], "Content-Type": "application/json"}
END = time.monotonic() + SECONDS
count = {"answered": 0, "slowest_s": 0.0}
failed = collections.Counter()
models = set()
lock = threading.Lock()


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + path, data, HEADERS), timeout=30) as answer:
        return json.load(answer)


def kind(e):
    """A status, `slow` for an answer that was not waited for, or the name of the error."""
    if isinstance(e, urllib.error.HTTPError):
        return "slow" if e.code == 408 else str(e.code)
    cause = getattr(e, "reason", e)
    return "slow" if isinstance(cause, TimeoutError) else type(cause).__name__


def work(user, items):
    while time.monotonic() < END and not os.path.exists(FILE):
        began = time.monotonic()
        while True:
            try:
                ask("/v1/rank", {"user_id": user, "candidates": items})
                key = ask("/v1/models")[0]["key"]
                break
            except OSError as e:
                with lock:
                    failed[kind(e)] += 1
                time.sleep(0.5)
        with lock:
            count["answered"] += 1
            models.add(key)
            count["slowest_s"] = max(count["slowest_s"], time.monotonic() - began)


def first(path, body=None):
    """An answer, whatever it takes: it is not what is counted."""
    while True:
        try:
            return ask(path, body)
        except OSError:
            assert time.monotonic() < END, path
            time.sleep(1)


user = first("/v1/users")[0]
items = [item["item_id"] for item in first("/v1/recommendations", {"user_id": user, "k": 50})["ranked"]]
threads = [threading.Thread(target=work, args=(user, items)) for _ in range(THREADS)]
[t.start() for t in threads]
[t.join() for t in threads]
print(json.dumps({**count, "failed": dict(failed), "models": sorted(models)}))
