"""Tables and cells of a report: numbers with their intervals, formatted once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from components.evaluation.bootstrap import Interval

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """One table cell.

    Attributes:
        key: where the manifest's metrics hold the number (`lift.popularity.hit@3`); '' for words.
        tone: 'good' or 'bad' when the interval leaves zero out, for differences.
    """

    text: str
    range: str = ""
    interval: Interval | None = None
    key: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Row:
    cells: tuple[Cell, ...]
    subject: bool = False


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[Row, ...] = field(default_factory=tuple)
    note: str = ""


def words(text: object) -> Cell:
    return Cell(str(text))


def number(interval: Interval | None, key: str = "", digits: int = 3) -> Cell:
    """A measured value over its interval; a dash where nothing could be measured."""
    if interval is None or math.isnan(interval.value):
        return Cell(DASH, key=key)
    low, high = f"{interval.low:.{digits}f}", f"{interval.high:.{digits}f}"
    return Cell(f"{interval.value:.{digits}f}", f"{low} to {high}", interval, key)


def difference(interval: Interval | None, key: str = "", digits: int = 3, lower_is_better: bool = False) -> Cell:
    """A signed difference, coloured only when its interval leaves zero out."""
    if interval is None or math.isnan(interval.value):
        return Cell(DASH, key=key)
    low, high = signed(interval.low, digits), signed(interval.high, digits)
    return Cell(signed(interval.value, digits), f"{low} to {high}", interval, key, tone(interval, lower_is_better))


def tone(interval: Interval, lower_is_better: bool = False) -> str:
    above, below = interval.low > 0, interval.high < 0
    if not above and not below:
        return ""
    return "good" if above != lower_is_better else "bad"


def signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def count(value: int | float) -> str:
    """Thousands apart by a narrow space that does not break."""
    return f"{value:,.0f}".replace(",", "\u202f")


def listing(names: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else "none"
