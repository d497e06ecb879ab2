"""Rows streamed from Parquet: sharded by rank, shuffled by (seed, epoch), resumable to the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.errors import UserError
from components.recipe import BatchSource, BatchT, Rank

Collate = Callable[[pa.Table, np.random.Generator], BatchT]
"""Makes a batch of rows, with a generator that is a function of (seed, epoch, rank, batch)."""


@dataclass(frozen=True)
class Piece:
    """Rows [start, stop) of one row group of one file."""

    file: str
    group: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, columns: list[str]) -> pa.Table:
        with pq.ParquetFile(self.file) as f:
            return f.read_row_group(self.group, columns=columns).slice(self.start, len(self))


def row_groups(files: list[str]) -> list[Piece]:
    """All row groups of the files, in order."""
    pieces = []
    for file in sorted(files):
        metadata = pq.read_metadata(file)
        rows = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        pieces += [Piece(file, g, 0, n) for g, n in enumerate(rows) if n]
    return pieces


@dataclass(frozen=True)
class LaterPiece(Piece):
    """Rows [start, stop) of those of one row group whose `timestamp` is `since` (µs since epoch) or later."""

    since: int

    def read(self, columns: list[str]) -> pa.Table:
        with pq.ParquetFile(self.file) as f:
            rows = f.read_row_group(self.group, columns=[*{*columns, "timestamp"}])
        return rows.filter(pa.array(_moments(rows) >= self.since)).select(columns).slice(self.start, len(self))


def since(files: list[str], moment: int) -> list[Piece]:
    """What of all row groups is not earlier than `moment` (µs since epoch)."""
    pieces: list[Piece] = []
    for group in row_groups(files):
        rows = int((_moments(group.read(["timestamp"])) >= moment).sum())
        pieces += [LaterPiece(group.file, group.group, 0, rows, moment)] if rows else []
    return pieces


def _moments(rows: pa.Table) -> NDArray[np.int64]:
    moments: NDArray[np.int64] = rows["timestamp"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    return moments


def share(pieces: list[Piece], rank: Rank, *, equal: bool) -> list[Piece]:
    """The contiguous 1/world of all rows that belongs to a rank.

    Args:
        equal: as many rows for every rank, up to world − 1 rows unused; else all rows are used.
    """
    rows = sum(map(len, pieces))
    if equal:
        rows -= rows % rank.world
    first, last = rank.rank * rows // rank.world, (rank.rank + 1) * rows // rank.world
    mine, begin = [], 0
    for p in pieces:
        start, stop = max(first - begin, 0), min(last - begin, len(p))
        if start < stop:
            mine.append(replace(p, start=p.start + start, stop=p.start + stop))
        begin += len(p)
    return mine


class ParquetSource(BatchSource[BatchT]):
    """Batches of rows that `collate` turns into tensors.

    An epoch permutes the row groups by (seed, epoch), gives each rank an equal contiguous part of the rows, and
    shuffles within blocks of at least `shuffle` rows. A resumed run sees the very batches it would have seen.

    Args:
        batch: rows per batch of this rank; a last smaller one is dropped, so that ranks agree in number.
        most: batches per epoch at most (None: all rows once); each epoch takes others.
        pieces: what of the files is read; their rows may be made of the files' rows.

    Raises:
        UserError: fewer rows than one batch per rank.
    """

    def __init__(
        self,
        files: list[str],
        columns: list[str],
        collate: Collate[BatchT],
        *,
        batch: int,
        rank: Rank,
        seed: int,
        shuffle: int,
        most: int | None = None,
        pieces: Callable[[list[str]], Sequence[Piece]] = row_groups,
    ) -> None:
        self._most = most
        self._groups, self._columns, self._collate = pieces(files), columns, collate
        self._batch, self._rank, self._seed, self._shuffle = batch, rank, seed, shuffle
        self.epoch = self.offset = 0
        if not self.batches_per_epoch:
            raise UserError(
                f"{sum(map(len, self._groups))} rows to train on are too few for {rank.world} workers of {batch} rows",
                "lower the batch size or the number of workers, or ingest more",
            )

    @property
    def batches_per_epoch(self) -> int:
        all_rows = sum(map(len, self._groups)) // self._rank.world // self._batch
        return all_rows if self._most is None else min(all_rows, self._most)

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.offset = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "offset": self.offset, "batches_per_epoch": self.batches_per_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position; with another number of workers, to the same part of the epoch."""
        self.epoch = state["epoch"]
        self.offset = round(state["offset"] * self.batches_per_epoch / state["batches_per_epoch"])

    def __iter__(self) -> Iterator[BatchT]:
        for rows in self._rows(self.offset, self.batches_per_epoch):
            rng = np.random.default_rng((self._seed, self.epoch, self._rank.rank, self.offset))
            batch = self._collate(rows, rng)
            self.offset += 1
            yield batch

    def _rows(self, first: int, last: int) -> Iterator[pa.Table]:
        """Rows of batches [first, last) of the epoch."""
        skip, rest = first * self._batch, None
        for number, block in enumerate(self._blocks()):
            size = sum(map(len, block))
            if rest is None and skip >= size:
                skip -= size
                continue
            rows = self._shuffled(block, number).slice(skip)
            skip, rest = 0, rows if rest is None else pa.concat_tables([rest, rows])
            while len(rest) >= self._batch and first < last:
                yield rest.slice(0, self._batch)
                rest, first = rest.slice(self._batch), first + 1

    def _blocks(self) -> list[list[Piece]]:
        order = np.random.default_rng((self._seed, self.epoch)).permutation(len(self._groups))
        blocks: list[list[Piece]] = [[]]
        for piece in share([self._groups[i] for i in order], self._rank, equal=True):
            if sum(map(len, blocks[-1])) >= self._shuffle:
                blocks.append([])
            blocks[-1].append(piece)
        return blocks

    def _shuffled(self, block: list[Piece], number: int) -> pa.Table:
        rows = pa.concat_tables([p.read(self._columns) for p in block])
        rng = np.random.default_rng((self._seed, self.epoch, self._rank.rank, number, 1))
        return rows.take(rng.permutation(len(rows)))


def in_order(files: list[str], columns: list[str], *, batch: int, rank: Rank) -> Iterator[pa.Table]:
    """This rank's share of all rows, once, in order: what is measured."""
    for piece in share(row_groups(files), rank, equal=False):
        rows = piece.read(columns)
        for start in range(0, len(rows), batch):
            yield rows.slice(start, batch)
