"""Histories as id-only segments: cut, streamed and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import UserError
from components.history.keys import keys
from components.models.pinfm.negatives import ItemCounts
from components.models.pinfm.steps import Bools, Ints, runs
from components.models.source import Piece, row_groups

COLUMNS = ["user_id", "item_key", "action", "surface", "timestamp"]
LISTS = COLUMNS[1:]


def chosen(item_key: Ints, action: Ints, positive: Sequence[int]) -> Bools:
    """Which events are a positive action on a known item; one on an unknown item is seen but not learned to predict."""
    return np.isin(action, positive) & (item_key >= 0)


@dataclass(frozen=True)
class Cut:
    """How histories become segments.

    Attributes:
        stop: only events strictly before it (µs since epoch).
        length: events of a segment.
        most: newest events of a user, cut from the newest backwards; what is left over is a shorter segment, if it is
            more than one event.
    """

    stop: int
    length: int
    most: int

    def __call__(self, rows: pa.Table) -> pa.Table:
        """`histories` rows, their arrays newest first → one row per segment, arrays oldest first.

        `user` is the key of the user's id.
        """
        block = rows.combine_chunks()
        if not len(block):
            return pa.table(
                {"user": pa.array([], pa.int64()), **{n: pa.array([], rows.schema.field(n).type) for n in LISTS}}
            )
        lists = {name: block[name].chunk(0) for name in LISTS}
        flat = {name: column.flatten().to_numpy(zero_copy_only=False) for name, column in lists.items()}
        owner = np.repeat(np.arange(len(block)), lists["timestamp"].value_lengths().to_numpy(zero_copy_only=False))
        kept = flat["timestamp"] < self.stop
        begin, count = runs(owner[kept])
        age = np.arange(len(owner[kept])) - np.repeat(begin, count)
        count = np.minimum(count, self.most)
        alone = (count % self.length == 1) * count - 1
        inside = (age < self.most) & (age != np.repeat(alone, np.diff(np.append(begin, len(age)))))
        kept[kept] = inside
        segment = owner[kept] * (self.most // self.length + 1) + age[inside] // self.length
        # Reversed as a whole: oldest first within a segment.
        begin, count = runs(segment[::-1])
        offsets = pa.array(np.append(begin, kept.sum()), pa.int32())
        columns = {n: pa.ListArray.from_arrays(offsets, pa.array(flat[n][kept][::-1])) for n in LISTS}
        user = keys(block["user_id"].to_pylist())[owner[kept][::-1][begin]]
        return pa.table({"user": pa.array(user, pa.int64()), **columns})


@dataclass(frozen=True)
class SegmentPiece(Piece):
    """Segments [start, stop) of one row group of `histories`."""

    cut: Cut

    def read(self, columns: list[str]) -> pa.Table:
        with pq.ParquetFile(self.file) as f:
            return self.cut(f.read_row_group(self.group, columns=columns)).slice(self.start, len(self))


@dataclass(frozen=True)
class Segments:
    """All that is to be trained on.

    Attributes:
        counts: of the positive actions on known items.
        first: time of the first event (µs since epoch).
    """

    pieces: list[Piece]
    counts: ItemCounts
    first: int

    @classmethod
    def of(cls, files: list[str], cut: Cut, positive: list[int]) -> Self:
        """One pass over `histories`; memory is that of a row group and of the different items.

        Raises:
            UserError: nobody chose anything known before the cut.
        """
        pieces: list[Piece] = []
        key, count, first = np.zeros(0, np.int64), np.zeros(0, np.int64), cut.stop
        for group in row_groups(files):
            segments = cut(group.read(COLUMNS))
            if len(segments):
                pieces.append(SegmentPiece(group.file, group.group, 0, len(segments), cut))
                item = events_of(segments, "item_key")
                more = item[chosen(item, events_of(segments, "action"), positive)]
                key, count = _add_up(np.concatenate([key, more]), np.concatenate([count, np.ones(len(more), np.int64)]))
                first = min(first, int(events_of(segments, "timestamp").min()))
        if not len(key):
            day = datetime.fromtimestamp(cut.stop / 1e6, UTC).date()
            raise UserError(
                f"no user has a positive action on a known item before {day}",
                "ingest earlier days, or move `contract.splits.validation` of the data set",
            )
        return cls(pieces, ItemCounts(key, count), first)


def _add_up(key: Ints, count: Ints) -> tuple[Ints, Ints]:
    distinct, place = np.unique(key, return_inverse=True)
    return distinct, np.bincount(place, count, len(distinct)).astype(np.int64)


def events_of(segments: pa.Table, column: str) -> Any:
    """One column of all events, segment after segment. [M]."""
    chunks = segments[column].combine_chunks()
    chunk = chunks.chunk(0) if isinstance(chunks, pa.ChunkedArray) else chunks
    return chunk.flatten().to_numpy(zero_copy_only=False)
