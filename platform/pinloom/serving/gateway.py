"""The HTTP side: routes, access, and what an error looks like. The work is done by `RankingService`."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import AwareDatetime

from components.contract import Role
from components.errors import UserError
from pinloom.serving.access import RequireKey
from pinloom.serving.metrics import Metrics, node_metrics
from pinloom.serving.realtime import Refused
from pinloom.serving.schemas import (
    OBJECT,
    TEXT,
    Accepted,
    Action,
    Problem,
    Problems,
    Ranking,
    RankRequest,
    RecommendRequest,
    Related,
    RelatedRequest,
    ServedModel,
    UserHistory,
)
from pinloom.serving.service import RankingService

MAX_ACTIONS = 1000
PAGE = Path(__file__).with_name("page.html")


def create_app(service: RankingService, key_sha256: str | None) -> FastAPI:
    """The endpoint of one data set. Every route under /v1 needs the API key, unless `key_sha256` is None."""
    app = FastAPI(
        title=f"Pinloom: {service.contract.name}",
        description="Rankings that follow what a person does. Scores are best first.",
        version="1",
        responses={422: {"model": Problems, "description": "what is wrong, where, and the remedy"}},
    )
    metrics = Metrics()
    app.middleware("http")(metrics.measure)
    _answer_errors(app)
    _open_routes(app, service)
    _keyed_routes(app, service, metrics, RequireKey(key_sha256))
    return app


def _keyed_routes(app: FastAPI, service: RankingService, metrics: Metrics, require_key: RequireKey) -> None:
    keyed: dict[str, Any] = {"dependencies": [Depends(require_key)]}

    def counted(ranking: Ranking) -> Ranking:
        unknown = sum(item.unknown for item in ranking.ranked)
        metrics.scored(len(ranking.ranked), unknown, ranking.unknown_user)
        return ranking

    @app.post("/v1/rank", **keyed)
    def rank(request: RankRequest) -> Ranking:
        """Score the candidates in one model call and return them best first, each with its place in the request."""
        return counted(service.rank(request))

    @app.post("/v1/recommendations", **keyed)
    def recommendations(request: RecommendRequest) -> Ranking:
        """The k best of what the retrievers propose."""
        return counted(service.recommend(request))

    @app.get("/v1/items/{item_id}/related", **keyed)
    def related_to(
        item_id: str,
        k: Annotated[int, Query(ge=1, le=500)] = 10,
        category: Annotated[list[str] | None, Query()] = None,
    ) -> Related:
        """The items nearest to one; of some categories alone, if any are named."""
        return service.related(RelatedRequest(items=[item_id], k=k, categories=category or []))

    @app.post("/v1/items/related", **keyed)
    def related(request: RelatedRequest) -> Related:
        """The items nearest to several at once, or to one that the catalogue does not have."""
        return service.related(request)

    @app.post("/v1/actions", **keyed)
    def actions(rows: Annotated[list[Action], Body(min_length=1, max_length=MAX_ACTIONS)]) -> Accepted:
        """Store actions; all or none. When this has answered, the next ranking knows them."""
        accepted = service.act(rows)
        metrics.actions.inc(accepted.accepted)
        return accepted

    @app.get("/v1/models", **keyed)
    def models() -> list[ServedModel]:
        return [service.model]

    @app.get("/v1/users", **keyed)
    def users() -> list[str]:
        """Some users with a history, to try things with."""
        return list(service.sample_users)

    @app.get("/v1/users/{user_id}", **keyed)
    def user(
        user_id: str, limit: Annotated[int, Query(ge=1, le=500)] = 20, at: AwareDatetime | None = None
    ) -> UserHistory:
        """What a ranking (as of `at`) knows of this user."""
        return service.history(user_id, limit, at)


def _open_routes(app: FastAPI, service: RankingService) -> None:
    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok", "deployment": service.model.deployment}

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics_of_node() -> PlainTextResponse:
        """Prometheus text of the node that answered (Ray exports every node's; see docs/serving.md)."""
        text = node_metrics()
        return PlainTextResponse(text or "# not running in Ray: nothing is exported\n", 200 if text else 503)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> HTMLResponse:
        (action, *_) = service.contract.names(Role.POSITIVE)
        words = {"dataset": service.contract.name, "action": action}
        text = PAGE.read_text()
        for name, word in words.items():
            text = text.replace("{{" + name + "}}", html.escape(word))
        return HTMLResponse(text)


def _answer_errors(app: FastAPI) -> None:
    def answer(problems: list[Problem]) -> JSONResponse:
        return JSONResponse(Problems(errors=problems).model_dump(), 422)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, e: RequestValidationError) -> JSONResponse:
        return answer([_problem(error) for error in e.errors()[:20]])

    @app.exception_handler(Refused)
    async def refused(_: Request, e: Refused) -> JSONResponse:
        return answer(e.problems)

    @app.exception_handler(UserError)
    async def user_error(_: Request, e: UserError) -> JSONResponse:
        return answer([Problem(field="", problem=e.problem, remedy=e.remedy)])


REMEDIES = {
    "missing": "send this field",
    "extra_forbidden": "leave this field out, or check its spelling",
    "timezone_aware": "add the offset, such as Z",
    "json_invalid": "send JSON",
}


def _problem(error: dict[str, Any]) -> Problem:
    parts = [p for p in error["loc"][1:] if p not in (TEXT, OBJECT)]
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts)
    return Problem(
        field=path.removeprefix("."),
        problem=error["msg"],
        remedy=REMEDIES.get(error["type"], "see /docs for what is expected here"),
    )
