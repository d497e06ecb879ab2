"""Who may call: one API key, known here only by its SHA-256, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac

from fastapi import HTTPException, Request
from fastapi.security import APIKeyHeader, HTTPBearer

from components.errors import UserError
from pinloom.settings import ServingSettings

MIN_KEY_LENGTH = 16
"""The deployment's configuration carries the key's hash, so that a guessable key could be found from it."""

BEARER = HTTPBearer(auto_error=False, description="the API key")
HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="the API key")


def key_digest(settings: ServingSettings) -> str | None:
    """SHA-256 (hex) of the API key, or None when no key is required.

    Raises:
        UserError: a key is required and missing or too short.
    """
    if not settings.require_api_key:
        return None
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    if not key:
        raise UserError(
            "serving needs an API key and none is configured",
            "set PINLOOM_SERVING__API_KEY to a secret, or PINLOOM_SERVING__REQUIRE_API_KEY=false to serve anybody",
        )
    if len(key) < MIN_KEY_LENGTH:
        raise UserError(
            f"the API key has {len(key)} characters, fewer than {MIN_KEY_LENGTH}",
            "make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return hashlib.sha256(key.encode()).hexdigest()


class RequireKey:
    """FastAPI dependency: 401 unless the request carries the key."""

    def __init__(self, digest: str | None) -> None:
        self._digest = digest

    async def __call__(self, request: Request) -> None:
        if self._digest is None:
            return
        bearer = await BEARER(request)
        given = bearer.credentials if bearer else await HEADER(request)
        shown = hashlib.sha256((given or "").encode()).hexdigest()
        if not hmac.compare_digest(shown, self._digest):
            raise HTTPException(
                401,
                "the API key is missing or wrong: send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
                headers={"WWW-Authenticate": "Bearer"},
            )
