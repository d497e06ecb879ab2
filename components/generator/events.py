"""What the users of one bucket were shown and did."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.generator.catalogue import Catalogue, item_name, user_name
from components.generator.people import DISLIKES, People
from components.generator.world import DAY_MS, DISLIKED, LIKED, NEUTRAL, SHARES, World

Ints = NDArray[np.int64]
ACTIONS = ("impression", "click", "save", "hide")
REQUEST_GAP_MS = 60_000
SURFACES = ("home", "search")


def simulate(world: World, catalogue: Catalogue, people: People, bucket: int) -> pl.DataFrame:
    """The log of one bucket, sorted by time: `user`, `item`, `action`, `time_ms`, `surface`, `session`, `request`.

    Impressions of a request share its time; each action follows its impression within the minute, at a time of its
    own.
    """
    rng = world.rng(2, bucket)
    user, time, session, request = _requests(world, people, rng)
    slots = world.impressions_per_request
    user, time, session, request = (np.repeat(a, slots) for a in (user, time, session, request))
    likes = people.likes(user, time)
    item = catalogue.draw(_shown(world, people, user, likes, rng), time, rng)
    happened = _actions(catalogue, people, user, item, likes, rng)
    slot = np.arange(len(user)) % slots
    columns = []
    for code, mask in enumerate(happened):
        at = np.flatnonzero(mask)
        delay = (1 + slot[at]) * 5_000 + code * 1_000 if code else 0
        columns.append((user[at], item[at], np.full(len(at), code), time[at] + delay, session[at], request[at]))
    rows = [np.concatenate(parts) for parts in zip(*columns, strict=True)]
    return _frame(people, bucket, rows, rng)


def _requests(world: World, people: People, rng: np.random.Generator) -> tuple[Ints, Ints, Ints, Ints]:
    """One row per request: user (position in the bucket), time in ms, session, request. A session has 1 to 3."""
    sessions = round(world.sessions * len(people.ids) / world.users)
    of_session = np.repeat(np.arange(len(people.ids)), rng.multinomial(sessions, people.activity))
    begin = world.start_ms + rng.integers(world.days * DAY_MS - 10 * REQUEST_GAP_MS, size=sessions)
    count = rng.integers(1, 4, size=sessions)
    session = np.repeat(np.arange(sessions), count)
    nth = np.arange(len(session)) - np.repeat(np.cumsum(count) - count, count)
    return of_session[session], begin[session] + nth * REQUEST_GAP_MS, session, np.arange(len(session))


def _shown(world: World, people: People, user: Ints, likes: Ints, rng: np.random.Generator) -> Ints:
    """Topic of each impression: an interest, a dislike, or any."""
    kind = rng.choice(3, size=len(user), p=SHARES)
    liked = likes[np.arange(len(user)), rng.integers(2, size=len(user))]
    disliked = people.dislikes[user, rng.integers(DISLIKES, size=len(user))]
    return np.choose(kind, [liked, disliked, rng.integers(world.topics, size=len(user))])


def _actions(
    catalogue: Catalogue, people: People, user: Ints, item: Ints, likes: Ints, rng: np.random.Generator
) -> list[NDArray[np.bool_]]:
    """Per action of `ACTIONS`, whether it happened. [n] each."""
    topic = catalogue.topic[item]
    liked = (likes == topic[:, None]).any(axis=1)
    disliked = (people.dislikes[user] == topic[:, None]).any(axis=1)
    quality = 0.6 + 0.8 * catalogue.quality[item]
    chances = [
        np.select([liked, disliked], [getattr(LIKED, a), getattr(DISLIKED, a)], getattr(NEUTRAL, a))
        * (quality if a == "click" else 1.0)
        for a in ACTIONS[1:]
    ]
    return [np.ones(len(user), dtype=bool), *(rng.random(len(user)) < chance for chance in chances)]


def _frame(people: People, bucket: int, rows: list[Ints], rng: np.random.Generator) -> pl.DataFrame:
    user, item, action, time, session, request = rows
    surface = rng.integers(len(SURFACES), size=int(request.max()) + 1)[request]
    return (
        pl.DataFrame({"user": people.ids[user], "item": item, "time_ms": time, "session": session, "request": request})
        .with_columns(
            user_name("user"),
            item_name("item"),
            action=pl.Series(ACTIONS).gather(action),
            surface=pl.Series(SURFACES).gather(surface),
            session=pl.concat_str(pl.lit(f"s{bucket}-"), "session"),
            request=pl.concat_str(pl.lit(f"r{bucket}-"), "request"),
        )
        .sort("time_ms", "request", "item", "action")
    )
