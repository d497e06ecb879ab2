"""Bootstrap over requests, or over users with all of theirs. One draw serves every statistic of a report, so that all
differences are paired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CHUNK_CELLS = 16_000_000
"""Resamples are drawn in chunks of at most this many (resample, unit) counts."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its percentile interval; all NaN where nothing could be measured."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ratio:
    """A statistic as Σ numerator / Σ denominator over requests, both [R]: what a bootstrap can resample at once."""

    numerator: Floats
    denominator: Floats

    @property
    def value(self) -> float:
        total = float(self.denominator.sum())
        return float(self.numerator.sum()) / total if total else float("nan")

    def of(self, requests: NDArray[np.bool_]) -> Ratio:
        """The same statistic over some of the requests ([R] bool); the others count as empty."""
        return Ratio(self.numerator * requests, self.denominator * requests)


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Resamples of R requests with replacement, the same ones at every call.

    Attributes:
        confidence: of two-sided percentile intervals.
        user_of: int64 [R], index of the user of each request: users are drawn, each with all requests, because those
            of one user are alike and would make intervals too narrow. None: requests are drawn.
    """

    requests: int
    resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95
    user_of: NDArray[np.int64] | None = None

    @property
    def drawn(self) -> int:
        """How many units a resample draws."""
        return self.requests if self.user_of is None else int(self.user_of.max(initial=-1)) + 1

    def _by_unit(self, sides: Sequence[Floats]) -> Floats:
        """Sums of [R] columns over what is drawn together. Returns [drawn, M]."""
        if self.user_of is None:
            return np.stack(sides, axis=1)
        return np.stack([np.bincount(self.user_of, side, minlength=self.drawn) for side in sides], axis=1)

    def _counts(self) -> Iterator[NDArray[np.float32]]:
        """How often each resample holds each unit, in chunks [b, U] of all [resamples, U]."""
        rng, units = np.random.default_rng(self.seed), self.drawn
        step = max(1, CHUNK_CELLS // max(1, units))
        for start in range(0, self.resamples, step):
            size = min(step, self.resamples - start)
            drawn = rng.integers(units, size=(size, units))
            drawn += np.arange(size)[:, None] * units
            flat = np.bincount(drawn.ravel(), minlength=size * units)
            yield flat.reshape(size, units).astype(np.float32)

    def samples(self, statistics: Sequence[Ratio]) -> Floats:
        """Value of each of M statistics in each resample. Returns [resamples, M], NaN where a denominator is empty."""
        above = self._by_unit([s.numerator for s in statistics])
        below = self._by_unit([s.denominator for s in statistics])
        parts = [(counts @ above, counts @ below) for counts in self._counts()]
        top, bottom = (np.concatenate(side) for side in zip(*parts, strict=True))
        return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)

    def intervals(self, statistics: Sequence[Ratio]) -> list[Interval]:
        return [self._interval(s.value, x) for s, x in zip(statistics, self.samples(statistics).T, strict=True)]

    def differences(self, ours: Sequence[Ratio], theirs: Sequence[Ratio]) -> list[Interval]:
        """Paired differences ours − theirs, one by one."""
        both = self.samples([*ours, *theirs])
        drawn = both[:, : len(ours)] - both[:, len(ours) :]
        values = [a.value - b.value for a, b in zip(ours, theirs, strict=True)]
        return [self._interval(v, x) for v, x in zip(values, drawn.T, strict=True)]

    def _interval(self, value: float, drawn: Floats) -> Interval:
        drawn = drawn[~np.isnan(drawn)]
        if np.isnan(value) or not len(drawn):
            return Interval(float("nan"), float("nan"), float("nan"))
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Interval(value, float(low), float(high))
