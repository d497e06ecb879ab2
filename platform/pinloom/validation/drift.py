"""Drift between days: volume and action mix of each day against the last published day before it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import polars as pl

from pinloom.lake import Lake, Manifest
from pinloom.validation.days import DAY

SMALL = 1_000
"""Rows by which days of a small log differ by chance: such days are held to be more alike than they look."""

COMPARED = {
    DAY: pl.String,
    "rows": pl.Int64,
    "against": pl.String,
    "volume_factor": pl.Float64,
    "mix_change": pl.Float64,
}

Mix = dict[str, int]
"""Action → rows."""


@dataclass
class Days:
    """Action counts of days: those of this run, and published ones read when asked for."""

    lake: Lake
    table: Manifest | None
    counts: dict[str, Mix] = field(default_factory=dict)
    _read: dict[str, Mix] = field(default_factory=dict)

    def add(self, frame: pl.DataFrame) -> None:
        for day, action, rows in frame.group_by(DAY, "action").len().iter_rows():
            self.counts.setdefault(day, {})[action] = rows

    def _mix(self, day: str) -> Mix:
        if day in self.counts:
            return self.counts[day]
        if day not in self._read:
            assert self.table is not None
            files = [str(self.lake.local_path(uri)) for uri in self.table.output("actions").partition(day)]
            self._read[day] = dict(pl.scan_parquet(files).group_by("action").len().collect().iter_rows())
        return self._read[day]

    def compare(self, replaced: Iterable[str]) -> pl.DataFrame:
        """One row per day of this run: rows, the day it is held against, the factor and the change of mix.

        The baseline is the last day before it, of this run or published; without one, the first published after it,
        so that a backfill from the newest day is held against something too. Null when there is none.

        Args:
            replaced: days that this run replaces: their published rows are no baseline.
        """
        own = sorted(self.counts)
        known = self.table.output("actions").partitions() if self.table else []
        others = sorted(set(known) - {*own, *replaced})
        rows = []
        for day in own:
            before = [d for d in (*own, *others) if d < day]
            against = max(before) if before else min((d for d in others if d > day), default=None)
            size = sum(self.counts[day].values())
            rows.append({DAY: day, "rows": size, "against": against, **self._change(day, against)})
        return pl.DataFrame(rows, schema=COMPARED)

    def _change(self, day: str, against: str | None) -> dict[str, float | None]:
        if against is None:
            return {"volume_factor": None, "mix_change": None}
        new, old = self._mix(day), self._mix(against)
        return {"volume_factor": volume_factor(new, old), "mix_change": mix_change(new, old)}


def volume_factor(new: Mix, old: Mix) -> float:
    """How many times larger one day is than the other, whichever it is: ≥ 1."""
    a, b = sum(new.values()) + SMALL, sum(old.values()) + SMALL
    return max(a, b) / min(a, b)


def mix_change(new: Mix, old: Mix) -> float:
    """Total variation distance of the shares of actions, in [0, 1], shrunk towards 0 for days of few rows."""
    n, m = sum(new.values()), sum(old.values())
    if not n or not m:
        return 0.0
    share = {a: old.get(a, 0) / m for a in {*new, *old}}
    weight = n / (n + SMALL) * m / (m + SMALL)
    return weight * sum(abs(new.get(a, 0) / n - q) for a, q in share.items()) / 2
