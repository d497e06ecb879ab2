"""Runs in a pod: requests for some seconds, each until it is answered; prints how many were, and how often it failed.

python -c <this file> URL SECONDS THREADS
"""

import json
import os
import sys
import threading
import time
import urllib.request

URL, SECONDS, THREADS = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
HEADERS = {"X-API-Key": os.environ["PINLOOM_SERVING__API_KEY"], "Content-Type": "application/json"}
END = time.monotonic() + SECONDS
count = {"answered": 0, "failed": 0, "slowest_s": 0.0}
models = set()
lock = threading.Lock()


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + path, data, HEADERS), timeout=30) as answer:
        return json.load(answer)


def work(user, items):
    while time.monotonic() < END:
        began = time.monotonic()
        while True:
            try:
                ask("/v1/rank", {"user_id": user, "candidates": items})
                key = ask("/v1/models")[0]["key"]
                break
            except OSError:
                with lock:
                    count["failed"] += 1
                time.sleep(0.5)
        with lock:
            count["answered"] += 1
            models.add(key)
            count["slowest_s"] = max(count["slowest_s"], time.monotonic() - began)


found = ask("/v1/users")
user = (found["users"] if isinstance(found, dict) else found)[0]
user = user["user_id"] if isinstance(user, dict) else user
items = [item["item_id"] for item in ask("/v1/recommendations", {"user_id": user, "k": 50})["ranked"]]
threads = [threading.Thread(target=work, args=(user, items)) for _ in range(THREADS)]
[t.start() for t in threads]
[t.join() for t in threads]
print(json.dumps({**count, "models": sorted(models)}))
