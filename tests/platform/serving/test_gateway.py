"""The door: what a malformed body, a missing key or a question about the deployment is answered."""

import pytest
from fastapi.testclient import TestClient

from pinloom.serving.config import key_digest
from pinloom.serving.gateway import create_app
from pinloom.settings import ServingSettings
from tests.platform.serving.asking import action, post
from tests.platform.serving.world import KEY


def problem(client, path, body) -> dict[str, str]:
    answer = client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    return answer.json()["errors"][0]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"candidates": ["a"]}, "user_id", "required"),
        ({"user_id": "u", "candidates": []}, "candidates", "at least 1"),
        ({"user_id": "", "candidates": ["a"]}, "user_id", "at least 1"),
        ({"user_id": "u", "candidates": ["a"], "at": "2026-03-01T00:00:00"}, "at", "timezone"),
        ({"user_id": "u", "candidates": ["a"], "at": 1772323200}, "at", "ISO 8601"),
        ({"user_id": "u", "candidates": ["a"], "surfaces": "x"}, "surfaces", "not permitted"),
        ({"user_id": "u", "candidates": [{"item": "a"}]}, "candidates[0].item_id", "required"),
        ({"user_id": "u", "candidates": ["a", 7]}, "candidates[1]", "string"),
    ],
)
def test_a_malformed_ranking_names_the_field(client, body, field, said):
    fields = {e["field"]: e["problem"] for e in client.post("/v1/rank", json=body).json()["errors"]}
    assert said in fields[field]


def test_too_many_candidates_are_refused_with_the_maximum(client):
    error = problem(client, "/v1/rank", {"user_id": "u", "candidates": ["a"] * 2001})
    assert (error["problem"], error["remedy"]) == ("2001 candidates in one request", "send at most 2000")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"event_id": None}, "[0].event_id"),
        ({"value": "much"}, "[0].value"),
        ({"sampling_probability": 0}, "[0].sampling_probability"),
        ({"timestamp": "yesterday"}, "[0].timestamp"),
        ({"timestamp": "2999-01-01T00:00:00Z"}, "[0].timestamp"),
        ({"colour": "red"}, "[0].colour"),
    ],
)
def test_a_wrong_action_names_the_field_and_a_remedy(client, wrong, field):
    error = problem(client, "/v1/actions", [{**action("a"), **wrong}])
    assert error["field"] == field
    assert error["remedy"]


def test_what_is_not_json_is_said_to_be(client):
    answer = client.post("/v1/rank", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["remedy"] == "send JSON"


def test_every_route_under_v1_needs_the_key(service):
    client = TestClient(create_app(service, key_digest(ServingSettings(api_key=KEY))))
    paths = client.get("/openapi.json").json()["paths"]
    keyed = [(path, method) for path, methods in paths.items() if path.startswith("/v1") for method in methods]
    assert len(keyed) == 8
    for path, method in keyed:
        assert client.request(method, path).status_code == 401, path
    assert client.get("/v1/models", headers={"X-API-Key": KEY}).status_code == 200
    for path in ("/", "/healthz", "/docs"):
        assert client.get(path).status_code == 200


def test_the_model_says_what_it_is_made_of(client, world):
    (model,) = client.get("/v1/models").json()
    assert model["name"] == "transact"
    assert model["champion"] == world.champion.uri
    assert model["snapshot"] == world.online.uri
    assert model["heads"] == {"buy": 1.0, "hide": -0.5}
    assert model["items"] == 60


def test_the_documentation_describes_bodies_and_errors(client):
    described = client.get("/openapi.json").json()
    assert {"/v1/rank", "/v1/recommendations", "/v1/actions", "/v1/models", "/healthz", "/metrics"} <= set(
        described["paths"]
    )
    assert "RankRequest" in described["components"]["schemas"]
    assert described["paths"]["/v1/rank"]["post"]["security"] == [{"HTTPBearer": []}, {"APIKeyHeader": []}]
    assert described["paths"]["/v1/rank"]["post"]["responses"]["422"]["description"].startswith("what is wrong")


def test_a_history_is_shown_newest_first_with_titles(client):
    post(client, action("a", "felt-2"))
    shown = client.get("/v1/users/user-0", params={"limit": 3}).json()
    assert shown["actions"][0] == {
        "item_id": "felt-2",
        "title": "felt number 2",
        "category": "felt",
        "action": "buy",
        "timestamp": "2026-02-20T12:00:00+00:00",
    }
    assert len(shown["actions"]) == 3
    earlier = client.get("/v1/users/user-0", params={"limit": 3, "at": "2026-02-01T00:00:00Z"}).json()
    assert all(a["timestamp"] < "2026-02-01" for a in earlier["actions"])


def test_the_page_is_of_this_data_set(client):
    page = client.get("/").text
    assert "planted" in page
    assert "{{" not in page
