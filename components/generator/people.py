"""Users of one bucket: what they like when, what they dislike, how active they are."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.generator.catalogue import user_name
from components.generator.world import DAY_MS, World

DISLIKES = 2
Ints = NDArray[np.int64]


class People:
    """Arrays over the users of a bucket.

    Attributes:
        ids: [u] numbers of the users.
        tastes: [u, phases + 1] topics; in phase p a user likes tastes[p] and tastes[p + 1], so that neighbouring
            phases share one interest.
        dislikes: [u, 2] topics, none of them ever liked.
        offset: [u] ms by which the user's phases are shifted against the log's start.
        activity: [u] share of the bucket's sessions.
    """

    def __init__(self, world: World, bucket: int) -> None:
        if world.topics < world.phases + 1 + DISLIKES:
            raise ValueError(f"{world.topics} topics are too few for {world.phases} phases")
        rng = world.rng(1, bucket)
        self.world = world
        self.ids: Ints = np.arange(*world.bucket_users(bucket))
        order = rng.permuted(np.tile(np.arange(world.topics), (len(self.ids), 1)), axis=1)
        self.tastes: Ints = order[:, : world.phases + 1]
        self.dislikes: Ints = order[:, -DISLIKES:]
        self.offset: Ints = rng.integers(world.phase_days * DAY_MS, size=len(self.ids))
        weight = rng.lognormal(0.0, 0.8, len(self.ids))
        self.activity = weight / weight.sum()

    def likes(self, users: Ints, times: Ints) -> Ints:
        """The two topics liked at a time. users [n] (positions in the bucket), times [n] ms → [n, 2]."""
        since = times - self.world.start_ms + self.offset[users]
        phase = since // (self.world.phase_days * DAY_MS)
        return np.stack([self.tastes[users, phase], self.tastes[users, phase + 1]], axis=1)

    def frame(self) -> pl.DataFrame:
        """What was planted: `user`, `tastes`, `dislikes` (topic names), `offset_ms`; and `region` (says nothing)."""
        region = self.world.rng(1, int(self.ids[0]), 2).integers(4, size=len(self.ids))
        return pl.DataFrame(
            {
                "user": self.ids,
                "region": region,
                "tastes": self.tastes,
                "dislikes": self.dislikes,
                "offset_ms": self.offset,
            }
        ).with_columns(
            user_name("user"),
            pl.concat_str(pl.lit("region-"), "region").alias("region"),
            pl.col("tastes", "dislikes").arr.to_list().list.eval(pl.concat_str(pl.lit("topic-"), pl.element())),
        )
