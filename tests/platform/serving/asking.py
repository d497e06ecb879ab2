"""Questions to the endpoint, as a caller asks them."""

from fastapi.testclient import TestClient

from tests.platform.serving import planted

CANDIDATES = [f"{c}-{i}" for c in planted.CATEGORIES for i in range(5)]
AT = "2026-03-01T00:00:00Z"


def _post(client: TestClient, path: str, body):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def rank(client, user="user-0", candidates=None, **fields):
    return _post(client, "/v1/rank", {"user_id": user, "candidates": candidates or CANDIDATES, **fields})


def recommend(client, user="user-0", **fields):
    return _post(client, "/v1/recommendations", {"user_id": user, **fields})


def post(client, *actions):
    return _post(client, "/v1/actions", list(actions))


def action(event: str, item="silk-1", user="user-0", name="buy", timestamp="2026-02-20T12:00:00Z", **fields):
    return {"event_id": event, "user_id": user, "item_id": item, "action": name, "timestamp": timestamp, **fields}


def scores(ranking) -> dict[str, float]:
    return {r["item_id"]: r["score"] for r in ranking["ranked"]}
