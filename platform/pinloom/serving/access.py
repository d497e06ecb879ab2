"""Who may call: one API key, known here only by its SHA-256, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

BEARER = HTTPBearer(auto_error=False, description="the API key")
HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="the API key")


class RequireKey:
    """FastAPI dependency: 401 unless the request carries the key."""

    def __init__(self, digest: str | None) -> None:
        self._digest = digest

    async def __call__(
        self,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
        header: Annotated[str | None, Depends(HEADER)],
    ) -> None:
        if self._digest is None:
            return
        given = bearer.credentials if bearer else header or ""
        if not hmac.compare_digest(hashlib.sha256(given.encode()).hexdigest(), self._digest):
            raise HTTPException(
                401,
                "the API key is missing or wrong: send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
                headers={"WWW-Authenticate": "Bearer"},
            )
