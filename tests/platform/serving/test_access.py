"""Who gets in."""

import hashlib

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from components.errors import UserError
from pinloom.serving.access import RequireKey
from pinloom.serving.config import key_digest
from pinloom.settings import ServingSettings

KEY = "a-key-of-more-than-16-characters"


@pytest.fixture
def client():
    app = FastAPI()

    @app.get("/", dependencies=[Depends(RequireKey(key_digest(ServingSettings(api_key=KEY))))])
    def root():
        return "in"

    return TestClient(app)


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}])
def test_either_header_lets_the_key_in(client, headers):
    assert client.get("/", headers=headers).json() == "in"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": hashlib.sha256(KEY.encode()).hexdigest()},
    ],
)
def test_anything_else_is_answered_401_with_the_remedy(client, headers):
    answer = client.get("/", headers=headers)
    assert answer.status_code == 401
    assert "X-API-Key" in answer.json()["detail"]


def test_a_required_key_must_be_configured():
    with pytest.raises(UserError, match="PINLOOM_SERVING__API_KEY"):
        key_digest(ServingSettings())


def test_a_key_that_could_be_guessed_from_its_digest_is_refused():
    with pytest.raises(UserError, match="token_urlsafe"):
        key_digest(ServingSettings(api_key="short"))


def test_only_the_explicit_setting_opens_the_door():
    assert key_digest(ServingSettings(require_api_key=False)) is None
