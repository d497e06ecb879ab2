"""What the endpoint does, without HTTP: rank, recommend, take actions, show a history."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.errors import UserError
from components.history.build import build_example
from components.history.schema import id_hash
from pinloom.serving.config import AppArgs
from pinloom.serving.landing import frame, land
from pinloom.serving.loading import Loaded
from pinloom.serving.realtime import check
from pinloom.serving.retrieval import ContentNeighbours, Popularity, Retriever, UserState, gather
from pinloom.serving.schemas import (
    Accepted,
    Action,
    Candidate,
    RankedItem,
    Ranking,
    RankRequest,
    RecommendRequest,
    Related,
    RelatedItem,
    RelatedRequest,
    ServedModel,
    UserHistory,
)

POOL = 10
"""Candidates gathered for each recommendation asked for, and at least `MIN_POOL`."""

MIN_POOL = 200
MAX_UNKNOWN_NAMED = 100

Rows = NDArray[np.int32]


class RankingService:
    """One data set, served by one process."""

    def __init__(self, loaded: Loaded, max_candidates: int) -> None:
        self.loaded = loaded
        self.contract = loaded.contract
        self.items, self.schema = loaded.items, loaded.schema
        self.max_candidates = max_candidates
        # The model uses all threads that this process may: a second call at once would only cost memory.
        self._one_call = threading.Lock()
        related = loaded.related
        near = related.retriever(self.schema) if related else ContentNeighbours(self.items, self.schema)
        self.retrievers: list[Retriever] = [Popularity(self.items, self.schema), near]

    @classmethod
    def load(cls, args: AppArgs) -> Self:
        """Open what a configuration names, and score with it once.

        Raises:
            UserError: a part is missing or broken, the parts do not fit together, or scores are not finite.
        """
        service = cls(Loaded.load(args), args.load_settings().serving.max_candidates)
        service.prove()
        return service

    def prove(self) -> None:
        """Rank for a user with a history: a replica takes requests after it has answered one.

        Raises:
            UserError: a score is not finite.
        """
        user = self.user_state(next(iter(self.sample_users), ""), None)
        rows = np.arange(min(len(self.items), MIN_POOL), dtype=np.int32)
        heads, scores = self.score(user, rows, np.zeros_like(rows))
        if not (np.isfinite(heads).all() and np.isfinite(scores).all()):
            raise UserError(
                f"the scores of {self.model.champion} are not finite",
                "train and promote again, or move the alias back to a version that serves",
            )

    @property
    def model(self) -> ServedModel:
        return self.loaded.model

    @property
    def sample_users(self) -> tuple[str, ...]:
        """Some users with a history."""
        return self.loaded.sample_users

    # -- ranking ---------------------------------------------------------------------------------

    def rank(self, request: RankRequest) -> Ranking:
        """Score every candidate in one model call.

        Raises:
            UserError: more candidates than are served.
        """
        if len(request.candidates) > self.max_candidates:
            raise UserError(
                f"{len(request.candidates)} candidates in one request", f"send at most {self.max_candidates}"
            )
        asked = [Candidate(item_id=c) if isinstance(c, str) else c for c in request.candidates]
        ids = [c.item_id for c in asked]
        rows = self.items.rows(ids)
        surfaces = _hashes([c.surface or request.surface for c in asked])
        user = self.user_state(request.user_id, request.at)
        heads, scores = self.score(user, rows, surfaces)
        ranked = [
            RankedItem(
                item_id=ids[i],
                index=i,
                score=scores[i],
                heads=dict(zip(self.schema.heads, heads[i], strict=True)),
                unknown=bool(rows[i] == 0),
            )
            for i in _best_first(scores)
        ]
        return self._ranking(user, ranked)

    def recommend(self, request: RecommendRequest) -> Ranking:
        """The best `k` of the retrievers' candidates."""
        user = self.user_state(request.user_id, request.at)
        size = min(max(POOL * request.k, MIN_POOL), self.max_candidates)
        rows, sources = gather(self.retrievers, user, size, exclude_seen=request.exclude_seen)
        if not len(rows):
            return self._ranking(user, [])
        heads, scores = self.score(user, rows, np.full_like(rows, id_hash(request.surface)))
        best = _best_first(scores)[: request.k]
        labels = self.items.labels[rows[best].tolist()]
        named = zip(best, labels.select("item_id", "title", "category").iter_rows(), strict=True)
        ranked = [
            RankedItem(
                item_id=item_id,
                score=scores[i],
                heads=dict(zip(self.schema.heads, heads[i], strict=True)),
                source=sources[i],
                title=title,
                category=category,
            )
            for i, (item_id, title, category) in named
        ]
        return self._ranking(user, ranked)

    def user_state(self, user_id: str, at: datetime | None) -> UserState:
        """What is known of the user strictly before `at`; without `at`, all of it."""
        history = self.loaded.online.history(user_id)
        if at is None:
            newest = int(history.timestamp[0]) if len(history) else 0
            moment = max(time.time_ns() // 1000, newest + 1)
        else:
            moment = _micros(at)
        return UserState(user_id, history.before(moment, self.schema.max_history), moment)

    def score(self, user: UserState, rows: Rows, surfaces: Rows) -> tuple[list[list[float]], list[float]]:
        """Probability of each head and final score of each candidate. Returns [n][heads] and [n]."""
        example = build_example(
            user.history, rows, user.at, self.items, self.schema, user_id=user.user_id, surface=surfaces
        )
        with self._one_call:
            return self.loaded.score(example, user.at)

    def _ranking(self, user: UserState, ranked: list[RankedItem]) -> Ranking:
        return Ranking(
            user_id=user.user_id,
            unknown_user=not len(user.history),
            at=_moment(user.at),
            model=self.model.key,
            ranked=ranked,
        )

    # -- related items ---------------------------------------------------------------------------

    def related(self, request: RelatedRequest) -> Related:
        """Items near the mean of some items, or near one that the catalogue does not have.

        Raises:
            UserError: no index is served; neither or both are asked about; an item is not known or has no vector.
        """
        index = self.loaded.related
        if index is None:
            raise UserError(
                "no index of item vectors is served", "run `pinloom step embed index`, then `pinloom step deploy`"
            )
        if bool(request.items) == (request.item is not None):
            raise UserError("ask about `items` or about one new `item`", "send exactly one of the two")
        asked = index.known(request.items)
        if request.item is None:
            query = index.of_rows(asked).mean(axis=0, keepdims=True)
        else:
            own = {"title": request.item.title, "category": request.item.category}
            query = index.newcomers.vector({**request.item.features, **own})
        exclude = np.union1d(asked, self.items.rows(request.exclude)).astype(np.int32)
        rows, scores = index.nearest(query, request.k, index.allowed(request.categories, exclude))
        labels = self.items.labels[rows.tolist()].select("item_id", "title", "category")
        found = zip(labels.iter_rows(named=True), scores.tolist(), strict=True)
        return Related(vectors=index.version, related=[RelatedItem(**label, score=score) for label, score in found])

    # -- actions ---------------------------------------------------------------------------------

    def act(self, actions: list[Action]) -> Accepted:
        """Land, then append: what was acknowledged is in the lake, and the next ranking of its user has it.

        Raises:
            Refused: an action breaks the contract; none is stored.
        """
        check(actions, self.contract, self.loaded.earliest)
        rows = frame(actions)
        land(self.loaded.lake, rows)
        new = self.loaded.online.append(rows)
        ids = rows["item_id"].unique(maintain_order=True)
        unknown = ids.filter(self.items.rows(ids) == 0)
        return Accepted(
            accepted=rows.height, new_in_history=new, unknown_items=unknown.head(MAX_UNKNOWN_NAMED).to_list()
        )

    def history(self, user_id: str, limit: int, at: datetime | None = None) -> UserHistory:
        """The newest actions that a ranking at that moment would see, with titles."""
        user = self.user_state(user_id, at)
        past = user.history.before(user.at, limit)
        names = list(self.contract.action_index)
        labels = self.items.labels[past.item.tolist()].select("item_id", "title", "category")
        actions = [
            {**label, "action": names[action - 1], "timestamp": _moment(moment)}
            for label, action, moment in zip(
                labels.iter_rows(named=True), past.action.tolist(), past.timestamp.tolist(), strict=True
            )
        ]
        return UserHistory(user_id=user_id, unknown_user=not len(user.history), actions=actions)


def _hashes(surfaces: list[str | None]) -> Rows:
    known = {s: id_hash(s) for s in set(surfaces)}
    return np.array([known[s] for s in surfaces], np.int32)


def _best_first(scores: list[float]) -> list[int]:
    """Indices by descending score; equal scores keep the order of the request."""
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def _micros(at: datetime) -> int:
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _moment(micros: int) -> str:
    whole, rest = divmod(micros, 1_000_000)
    return datetime.fromtimestamp(whole, UTC).replace(microsecond=rest).isoformat()
