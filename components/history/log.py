"""The actions of many users as arrays: one bucket of the log, sorted, with positions instead of times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.contract import Contract, Role, Ties
from components.history import kernels
from components.history.build import NEVER_DAYS, History
from components.history.keys import hashes, keys
from components.history.statistics import DAY

Ints = NDArray[np.int64]


def with_rows(frame: pl.DataFrame, item_ids: pl.Series) -> pl.DataFrame:
    """`frame` with `item`, the row of its `item_id` in the item table whose ids are given (0 = unknown)."""
    row = pl.col("item_id").cast(pl.Enum(item_ids), strict=False).to_physical().cast(pl.Int32)
    return frame.with_columns(item=row.fill_null(0))


def numbers(rows: pl.DataFrame, columns: list[str]) -> Ints:
    """The place of each row's values among the sorted distinct ones, int64 [rows]. No nulls.

    Equal rows mostly stand together, so that only the first of each run is looked up by its strings.
    """
    changes = pl.any_horizontal(pl.col(name) != pl.col(name).shift() for name in columns).fill_null(True)
    marked = rows.select(columns).with_columns(begins=changes)
    runs = marked.filter("begins").select(columns)
    distinct = runs.unique().sort(columns).with_row_index("number")
    number = runs.join(distinct, on=columns, how="left", maintain_order="left")["number"]
    return number.to_numpy().astype(np.int64)[np.cumsum(marked["begins"].to_numpy()) - 1]


@dataclass(frozen=True)
class UserLog:
    """Actions other than impressions of some users, user after user, each oldest first.

    Equal times of a user: by event key when the data set says `unordered`, else as stored.

    Attributes:
        users: their ids, sorted, [U].
        start: position of each user's first action, int64 [U + 1].
        item, action, timestamp, surface, event: as in `History`, [M].
    """

    users: pl.Series
    start: Ints
    item: NDArray[np.int32]
    action: NDArray[np.int16]
    timestamp: Ints
    surface: NDArray[np.int32]
    event: Ints

    def __len__(self) -> int:
        return len(self.item)

    @classmethod
    def from_actions(cls, actions: pl.DataFrame, contract: Contract) -> UserLog:
        """From rows of the contract's `actions` with `item` rows (`with_rows`), in stored order."""
        exposures = contract.names(Role.IMPRESSION)
        kept = actions.filter(~pl.col("action").is_in(exposures)).select(
            "user_id",
            "item",
            "surface",
            "event_id",
            action=pl.col("action").replace_strict(contract.action_index, return_dtype=pl.Int16),
            timestamp=pl.col("timestamp").dt.epoch("us"),
        )
        kept = kept.with_columns(event=keys(kept["event_id"]), user=numbers(kept, ["user_id"])).drop("event_id")
        order = ["user", "timestamp"] + (["event"] if contract.ties is Ties.UNORDERED else [])
        kept = kept.sort(order, maintain_order=True)
        begins = np.flatnonzero(np.diff(kept["user"].to_numpy(), prepend=-1))
        return cls(
            users=kept["user_id"].gather(begins),
            start=np.append(begins, kept.height),
            item=kept["item"].to_numpy(),
            action=kept["action"].to_numpy(),
            timestamp=kept["timestamp"].to_numpy(writable=True),
            surface=hashes(kept["surface"]),
            event=kept["event"].to_numpy(),
        )

    def index_of(self, user_ids: pl.Series) -> Ints:
        """Index of each user id, -1 for those without actions."""
        table = pl.DataFrame({"u": self.users, "i": np.arange(len(self.users))})
        found = pl.DataFrame({"u": user_ids}).join(table, on="u", how="left", maintain_order="left")
        return found["i"].fill_null(-1).to_numpy()

    def position(self, user: Ints, at: Ints) -> Ints:
        """Position of the first action of each user at or after each moment; all before it are strictly earlier.

        Args:
            user: indices ≥ 0, [n].
            at: µs since epoch, [n].
        """
        found = np.zeros(len(user), np.int64)
        if len(self):
            kernels.positions(self.start, self.timestamp, user, at, found)
        return found

    def window(self, user: Ints, at: Ints, limit: int) -> tuple[Ints, Ints]:
        """[first, end) of the newest `limit` actions strictly before `at`; empty for user -1."""
        if not len(self):
            return np.zeros_like(user), np.zeros_like(user)
        someone = np.maximum(user, 0)
        end = np.where(user < 0, 0, self.position(someone, at))
        return np.where(user < 0, 0, np.maximum(self.start[someone], end - limit)), end

    def user_numeric(self, user: Ints, at: Ints, first: Ints, end: Ints) -> NDArray[np.float32]:
        """`USER_NUMERIC` from the windows [first, end) before `at`. [n] each → float32 [n, 4]."""
        someone = np.maximum(user, 0)
        within = [end - np.clip(self.position(someone, at - days * DAY), first, end) for days in (7, 28)]
        last = np.full(len(at), NEVER_DAYS)
        some = end > first
        last[some] = (at[some] - self.timestamp[end[some] - 1]) / DAY
        return np.log1p(np.stack([end - first, *within, last], axis=1)).astype(np.float32)

    def history(self, user_id: str) -> History:
        """All actions of one user, newest first."""
        index = int(self.index_of(pl.Series([user_id], dtype=pl.String))[0])
        if index < 0:
            return History.empty()
        cut = slice(self.start[index], self.start[index + 1])
        arrays = (self.item, self.action, self.timestamp, self.surface, self.event)
        return History(*(a[cut][::-1] for a in arrays))  # type: ignore[arg-type]


def newest_first(first: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Positions end-1 … first of each window, one window after another, and the windows' offsets [n + 1]."""
    lengths = end - first
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return np.repeat(end, lengths) - 1 - within, offsets
