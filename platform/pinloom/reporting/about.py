"""What a report says beside its numbers, whatever was evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from components.contract import Contract, midnight
from components.history.items import ItemTable


@dataclass(frozen=True)
class About:
    """
    Attributes:
        curve: points of the training curve, {"step", "epoch", "train/…", "validation/…"}.
        lineage: (what, key) of the manifests behind the page.
        seen: the split begins before the end of what the subject learned from or was stopped by.
        boards_until: learned item vectors that are read know boards before this day; None where none are read.
    """

    contract: Contract
    split: str
    items: ItemTable
    curve: Sequence[Mapping[str, float]]
    lineage: Sequence[tuple[str, str]]
    seen: bool
    seed: int = 0
    boards_until: date | None = None

    @property
    def dates(self) -> str:
        start, stop = self.contract.splits.interval(self.split)
        return f"{self.split}, {start:%d %b} to {stop:%d %b %Y}"

    @property
    def known_boards(self) -> str:
        """What learned item vectors know; '' where none are read."""
        if self.boards_until is None:
            return ""
        start, _ = self.contract.splits.interval(self.split)
        flattered = midnight(self.boards_until) > start
        return f"before {self.boards_until:%d %b %Y}{', some of this split: it flatters' if flattered else ''}"
