"""Bodies of the endpoint: what a caller may send and what it gets back (the OpenAPI document is made of these)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag


def _iso_text(value: Any) -> Any:
    """Numbers would be read as seconds or milliseconds by their size; only text says which moment it means."""
    if isinstance(value, int | float):
        raise ValueError("a time is text in ISO 8601 with its offset, such as 2026-03-01T12:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_iso_text)]
Id = Annotated[str, Field(min_length=1, max_length=256)]
Surface = Annotated[str, Field(min_length=1, max_length=256)]

TEXT, OBJECT = "text", "object"
"""Which of its two forms a candidate has: in an error's path, not in the body."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Candidate(_Body):
    item_id: Id
    surface: Surface | None = Field(default=None, description="where it would be shown; else that of the request")


CandidateOrId = Annotated[
    Annotated[Id, Tag(TEXT)] | Annotated[Candidate, Tag(OBJECT)],
    Discriminator(lambda given: OBJECT if isinstance(given, dict | Candidate) else TEXT),
]


class RankRequest(_Body):
    user_id: Id
    candidates: list[CandidateOrId] = Field(min_length=1, description="items to rank, at most the served maximum")
    surface: Surface | None = Field(default=None, description="where the candidates would be shown")
    at: Moment | None = Field(
        default=None, description="rank as of this moment, with actions strictly before it; default: all that is known"
    )


class RankedItem(BaseModel):
    item_id: str
    index: int | None = Field(default=None, description="place of the candidate in the request, from 0")
    score: float = Field(description="sum of the heads' calibrated probabilities times their utilities")
    heads: dict[str, float] = Field(description="probability per head")
    unknown: bool = Field(default=False, description="the item is not in the served snapshot: scored as an unseen item")
    source: str | None = Field(default=None, description="retriever that proposed it (recommendations only)")
    title: str | None = None
    category: str | None = None


class Ranking(BaseModel):
    """Best first."""

    user_id: str
    unknown_user: bool = Field(description="no history of this user is known (at that moment): ranked as a newcomer")
    at: str = Field(description="moment as of which it was ranked")
    model: str = Field(description="key of the champion's run")
    ranked: list[RankedItem]


class RecommendRequest(_Body):
    user_id: Id
    k: int = Field(default=10, ge=1, le=500)
    exclude_seen: bool = Field(default=False, description="leave out items in the user's history")
    surface: Surface | None = None
    at: Moment | None = None


class NewItem(_Body):
    """An item that the catalogue does not have: what its data set declares of items; what is left out is unknown."""

    title: str | None = None
    category: str | None = None
    features: dict[str, str | float | list[float] | None] = Field(default_factory=dict)


class RelatedRequest(_Body):
    """Items related to the mean of `items`, or to one that is not in the catalogue."""

    items: list[Id] = Field(default_factory=list, max_length=100)
    item: NewItem | None = Field(default=None, description="instead of `items`")
    k: int = Field(default=10, ge=1, le=500)
    categories: list[str] = Field(default_factory=list, description="of these alone; none named: all")
    exclude: list[Id] = Field(default_factory=list, max_length=10_000)


class RelatedItem(BaseModel):
    item_id: str
    score: float = Field(description="inner product of the vectors")
    title: str | None = None
    category: str | None = None


class Related(BaseModel):
    """Best first; never an item that was asked about."""

    vectors: str = Field(description="version of the vectors that were compared")
    related: list[RelatedItem]


class Action(_Body):
    """One row of the contract's `actions`."""

    event_id: Id = Field(description="the same event sent twice counts once")
    user_id: Id
    item_id: Id
    action: str = Field(description="a word of the data set's vocabulary")
    timestamp: Moment
    surface: Surface | None = None
    session_id: Id | None = None
    request_id: Id | None = None
    value: float | None = Field(default=None, allow_inf_nan=False)
    sampling_probability: float | None = Field(default=None, gt=0, le=1)


class Accepted(BaseModel):
    accepted: int = Field(description="actions of this post now stored durably (sent before or not)")
    new_in_history: int = Field(description="positive and negative actions that histories did not have yet")
    unknown_items: list[str] = Field(description="items not in the served snapshot, at most 100 of them")


class Problem(BaseModel):
    field: str = Field(description="path in the body, such as [3].action")
    problem: str
    remedy: str = ""


class Problems(BaseModel):
    errors: list[Problem]


class ServedModel(BaseModel):
    name: str
    key: str = Field(description="key of the run that trained it")
    champion: str = Field(description="URI of the manifest it was loaded from")
    snapshot: str = Field(description="URI of the online manifest whose item table it reads")
    feature_service: str
    vectors: str = Field(description="version of the item vectors that the ranker reads")
    index: str | None = Field(default=None, description="URI of the index manifest that finds related items")
    heads: dict[str, float] = Field(description="head → utility in the final score")
    items: int
    deployment: str


class UserHistory(BaseModel):
    user_id: str
    unknown_user: bool
    actions: list[dict[str, Any]] = Field(description="newest first")
