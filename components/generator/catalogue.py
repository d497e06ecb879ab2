"""Items: a topic each, a quality, a popularity, and the moment they arrive."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.generator.world import DAY_MS, World

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "jade", "lumen", "maple")
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Catalogue:
    """All items of a world, as arrays over items.

    Attributes:
        topic: [n] int64.
        quality: [n] in (0, 1); multiplies the chance of a click.
        popularity: [n] weight of being shown among the items of the topic.
        created: [n] ms since epoch; half of the items are there from the start, the others arrive day by day.
    """

    def __init__(self, world: World) -> None:
        rng = world.rng(0)
        n = world.items
        self.world = world
        self.topic: Ints = np.concatenate([np.arange(world.topics), rng.integers(world.topics, size=n - world.topics)])
        self.quality: Floats = rng.random(n)
        self.popularity: Floats = rng.lognormal(0.0, 1.0, n)
        arrival = rng.integers(world.days * DAY_MS, size=n)
        there = (np.arange(n) < world.topics) | (rng.random(n) < 0.5)
        self.created: Ints = world.start_ms + np.where(there, -arrival - 1, arrival)

    @cached_property
    def _shelves(self) -> list[tuple[Ints, Ints, Floats]]:
        """Per topic: items in order of arrival, their arrivals, their cumulated popularity."""
        shelves = []
        for topic in range(self.world.topics):
            items = np.flatnonzero(self.topic == topic)
            items = items[np.argsort(self.created[items], kind="stable")]
            shelves.append((items, self.created[items], np.cumsum(self.popularity[items])))
        return shelves

    def draw(self, topics: Ints, times: Ints, rng: np.random.Generator) -> Ints:
        """One item of each topic among those that had arrived by then, by popularity. [n], [n] → [n]."""
        chance = rng.random(len(topics))
        drawn = np.empty(len(topics), dtype=np.int64)
        for topic, (items, created, weight) in enumerate(self._shelves):
            at = np.flatnonzero(topics == topic)
            there = np.searchsorted(created, times[at], side="right")
            drawn[at] = items[np.searchsorted(weight, chance[at] * weight[there - 1], side="right")]
        return drawn

    def frame(self) -> pl.DataFrame:
        """`item`, `created_ms`, `topic`, `title`, `quality`, `style` (says nothing)."""
        rng = self.world.rng(0, 1)
        words = np.array(WORDS)
        own = words[self.topic % len(WORDS)]
        other = words[rng.integers(len(WORDS), size=len(own))]
        return pl.DataFrame(
            {
                "item": np.arange(len(own)),
                "created_ms": self.created,
                "topic": self.topic,
                "title": pl.Series(own) + " " + pl.Series(other),
                "quality": self.quality,
                "style": rng.integers(5, size=len(own)),
            }
        ).with_columns(item_name("item"), topic=pl.concat_str(pl.lit("topic-"), "topic"))


def item_name(column: str) -> pl.Expr:
    return pl.concat_str(pl.lit("i"), column).alias(column)


def user_name(column: str) -> pl.Expr:
    return pl.concat_str(pl.lit("u"), column).alias(column)
