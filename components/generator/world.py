"""The sizes and odds of a synthetic world."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Odds:
    """Chances of an action on an impression, by what the topic is to the user at that time."""

    click: float
    save: float
    hide: float


LIKED = Odds(click=0.45, save=0.15, hide=0.002)
NEUTRAL = Odds(click=0.06, save=0.005, hide=0.01)
DISLIKED = Odds(click=0.02, save=0.001, hide=0.5)
SHARES = (0.35, 0.15, 0.5)
"""Of impressions: from the user's interests of the time, from what the user dislikes, from anywhere."""


@dataclass(frozen=True)
class World:
    """A log of about `actions` rows, impressions included.

    Attributes:
        topics: each item has one. A user likes two at a time and dislikes two for ever.
        days: length of the log from `start`.
        phase_days: after so many days one of a user's two interests gives way to a new one (drift).
        impressions_per_request: rows shown at one moment; a session has 1 to 3 requests.
    """

    actions: int
    seed: int = 0
    topics: int = 24
    days: int = 60
    phase_days: int = 20
    impressions_per_request: int = 8
    start: date = date(2024, 1, 1)
    users_per_bucket: int = 5_000

    @property
    def users(self) -> int:
        return max(10, self.actions // 250)

    @property
    def items(self) -> int:
        return max(10 * self.topics, min(1_000_000, self.actions // 100))

    @property
    def buckets(self) -> int:
        return -(-self.users // self.users_per_bucket)

    @property
    def phases(self) -> int:
        """Phases a user can pass through, the first being cut short by the user's own offset."""
        return -(-self.days // self.phase_days) + 1

    @property
    def start_ms(self) -> int:
        return int(datetime.combine(self.start, datetime.min.time(), UTC).timestamp() * 1000)

    @property
    def sessions(self) -> int:
        """Sessions that give about `actions` rows: 2 requests each, every impression with its expected actions."""
        by_chance = 2 / self.topics
        liked, disliked = SHARES[0] + SHARES[2] * by_chance, SHARES[1] + SHARES[2] * by_chance
        odds = ((LIKED, liked), (DISLIKED, disliked), (NEUTRAL, 1 - liked - disliked))
        rows = 1 + sum(share * (o.click + o.save + o.hide) for o, share in odds)
        return max(self.users, round(self.actions / (2 * self.impressions_per_request * rows)))

    def day(self, share: float) -> date:
        """The day at which `share` of the log has passed."""
        return self.start + timedelta(days=round(self.days * share))

    def bucket_users(self, bucket: int) -> tuple[int, int]:
        """Users [first, last) of a bucket."""
        first = bucket * self.users_per_bucket
        return first, min(self.users, first + self.users_per_bucket)

    def rng(self, *place: int) -> np.random.Generator:
        """Random numbers of one place of the world: the same whatever else is generated."""
        return np.random.default_rng([self.seed, *place])
