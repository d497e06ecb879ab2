"""What a report says beside its numbers, whatever was evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.contract import Contract
from components.history.items import ItemTable


@dataclass(frozen=True)
class About:
    """
    Attributes:
        curve: points of the training curve, {"step", "epoch", "train/…", "validation/…"}.
        lineage: (what, key) of the manifests behind the page.
        seen: the split begins before the end of what the subject learned from or was stopped by.
    """

    contract: Contract
    split: str
    items: ItemTable
    curve: Sequence[Mapping[str, float]]
    lineage: Sequence[tuple[str, str]]
    seen: bool
    seed: int = 0

    @property
    def dates(self) -> str:
        start, stop = self.contract.splits.interval(self.split)
        return f"{self.split}, {start:%d %b} to {stop:%d %b %Y}"
