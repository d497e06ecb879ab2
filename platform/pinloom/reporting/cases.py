"""Single requests to look at: what the user had done, what was ranked highest, what then happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.contract import Contract
from components.evaluation.metrics import Bools
from components.evaluation.rows import Rows
from components.history.items import ItemTable

HISTORY, RANKED, MISSED = 8, 6, 4


@dataclass(frozen=True)
class Line:
    title: str
    side: str = ""
    rank: str = ""
    hit: bool = False


@dataclass(frozen=True)
class Case:
    user: str
    when: str
    history: list[Line]
    ranked: list[Line]
    missed: list[Line]


def draw_cases(
    rows: Rows, chosen: Bools, final: NDArray[np.float32], items: ItemTable, contract: Contract, count: int, seed: int
) -> list[Case]:
    """`count` requests at random of those in which something was chosen, with a history where there are enough."""
    some = np.flatnonzero(np.bincount(rows.owner[chosen], minlength=rows.requests.height))
    known = some[rows.requests["history_item"].list.len().to_numpy()[some] > 0]
    pool = known if len(known) >= count else some
    drawn = np.random.default_rng(seed).choice(pool, min(count, len(pool)), replace=False)
    return [_case(rows, chosen, final, items, contract, int(r)) for r in np.sort(drawn)]


def _case(
    rows: Rows, chosen: Bools, final: NDArray[np.float32], items: ItemTable, contract: Contract, request: int
) -> Case:
    start, stop = rows.offsets[request], rows.offsets[request + 1]
    order = start + np.argsort(-final[start:stop], kind="stable")
    said = [_happened(rows, int(r)) for r in order]
    lines = [
        Line(title_of(items, int(rows.item[r])), said[i] or f"{final[r]:.4f}", str(i + 1), bool(chosen[r]))
        for i, r in enumerate(order)
    ]
    row = rows.requests.row(request, named=True)
    return Case(
        user=f"user {row['user_id']}",
        when=f"{row['timestamp']:%Y-%m-%d %H:%M} · {stop - start} candidates",
        history=_history(row, items, contract),
        ranked=lines[:RANKED],
        missed=[line for line in lines[RANKED:] if line.hit][:MISSED],
    )


def _happened(rows: Rows, row: int) -> str:
    return ", ".join(h for h, y in zip(rows.schema.heads, rows.labels[row], strict=True) if y)


def _history(row: dict[str, object], items: ItemTable, contract: Contract) -> list[Line]:
    names = {i: name for name, i in contract.action_index.items()}
    at = pl.Series([row["timestamp"]]).dt.epoch("us")[0]
    newest = [list(row[f"history_{part}"])[:HISTORY] for part in ("item", "action", "timestamp")]  # type: ignore[call-overload]
    return [
        Line(title_of(items, item), f"{names.get(action, '?')}, {_ago(at - then)}")
        for item, action, then in zip(*newest, strict=True)
    ]


def title_of(items: ItemTable, row: int) -> str:
    """What to call the item of a row."""
    return items.title[row] or items.ids[row] or "unknown item"


def _ago(micros: int) -> str:
    days = micros / 86_400e6
    if days >= 1:
        return f"{days:.0f} d"
    hours = days * 24
    return f"{hours:.0f} h" if hours >= 1 else f"{hours * 60:.0f} min"
