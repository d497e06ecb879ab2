"""`helm test`: Airflow's parts are healthy."""

import json
import sys
import time
import urllib.request

URL, TIMEOUT_S = sys.argv[1], float(sys.argv[2])
PARTS = ("metadatabase", "scheduler", "dag_processor")
deadline = time.monotonic() + TIMEOUT_S
while True:
    try:
        with urllib.request.urlopen(URL + "/api/v2/monitor/health", timeout=30) as answer:
            health = json.load(answer)
    except OSError as e:
        health = {"error": str(e)}
    if all(health.get(part, {}).get("status") == "healthy" for part in PARTS):
        break
    if time.monotonic() > deadline:
        sys.exit(f"Airflow at {URL} is not healthy: {health}")
    time.sleep(2)
print(json.dumps(health))
