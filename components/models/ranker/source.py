"""Training rows streamed from Parquet: sharded by rank, shuffled by (seed, epoch), resumable to the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import UserError
from components.history.items import ItemTable
from components.history.schema import FeatureSchema
from components.models.ranker.batch import RankingBatch
from components.models.ranker.data import COLUMNS, collate
from components.recipe import BatchSource, Rank


@dataclass(frozen=True)
class Piece:
    """Rows [start, stop) of one row group of one file."""

    file: str
    group: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self) -> pa.Table:
        with pq.ParquetFile(self.file) as f:
            return f.read_row_group(self.group, columns=list(COLUMNS)).slice(self.start, len(self))


def row_groups(files: list[str]) -> list[Piece]:
    """All row groups of the files, in order."""
    pieces = []
    for file in sorted(files):
        metadata = pq.read_metadata(file)
        rows = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        pieces += [Piece(file, g, 0, n) for g, n in enumerate(rows) if n]
    return pieces


def share(pieces: list[Piece], rank: int, world: int) -> list[Piece]:
    """The contiguous 1/world of all rows that belongs to `rank`: equal for every rank, up to world − 1 rows unused."""
    size = sum(map(len, pieces)) // world
    first, last = rank * size, (rank + 1) * size
    mine, begin = [], 0
    for p in pieces:
        start, stop = max(first - begin, 0), min(last - begin, len(p))
        if start < stop:
            mine.append(Piece(p.file, p.group, p.start + start, p.start + stop))
        begin += len(p)
    return mine


def candidates_per_request(files: list[str]) -> float:
    """Mean list length of the candidates, from Parquet metadata alone."""
    values = rows = 0
    for file in files:
        metadata = pq.read_metadata(file)
        column = metadata.schema.to_arrow_schema().get_field_index("labels")
        names = [metadata.row_group(0).column(i).path_in_schema for i in range(metadata.num_columns)]
        column = next(i for i, n in enumerate(names) if n.split(".")[0] == "labels")
        values += sum(metadata.row_group(g).column(column).num_values for g in range(metadata.num_row_groups))
        rows += metadata.num_rows
    return values / max(rows, 1)


class ExampleSource(BatchSource[RankingBatch]):
    """Batches of whole requests.

    An epoch permutes the row groups by (seed, epoch), gives each rank an equal contiguous part of the rows, and
    shuffles within blocks of at least `shuffle_requests` rows. Negatives are drawn by (seed, epoch, rank, batch), so
    that a resumed run sees the very batches it would have seen.

    Args:
        batch: requests per batch of this rank; a last smaller one is dropped, so that ranks agree in number.
        negatives: rows without action kept per request (0 = all).
    """

    def __init__(
        self,
        files: list[str],
        items: ItemTable,
        schema: FeatureSchema,
        *,
        batch: int,
        rank: Rank,
        seed: int = 0,
        sequence_length: int | None = None,
        negatives: int = 0,
        shuffle_requests: int = 4_096,
    ) -> None:
        self.groups = row_groups(files)
        self.items, self.schema = items, schema
        self.batch, self.rank, self.seed = batch, rank, seed
        self.sequence_length, self.negatives, self.shuffle_requests = sequence_length, negatives, shuffle_requests
        self.epoch = self.offset = 0
        if not self.batches_per_epoch:
            raise UserError(
                f"{sum(map(len, self.groups))} requests to train on are too few for {rank.world} workers with "
                f"{batch} requests a step",
                "lower requests_per_batch or the number of workers, or ingest more",
            )

    @property
    def batches_per_epoch(self) -> int:
        return sum(map(len, self.groups)) // self.rank.world // self.batch

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.offset = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "offset": self.offset, "batches_per_epoch": self.batches_per_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position; with another number of workers, to the same part of the epoch."""
        self.epoch = state["epoch"]
        self.offset = round(state["offset"] * self.batches_per_epoch / state["batches_per_epoch"])

    def __iter__(self) -> Iterator[RankingBatch]:
        for rows in self._rows(self.offset, self.batches_per_epoch):
            rng = np.random.default_rng((self.seed, self.epoch, self.rank.rank, self.offset))
            self.offset += 1
            yield collate(
                rows,
                self.items,
                self.schema,
                sequence_length=self.sequence_length,
                negatives=self.negatives,
                rng=rng,
            )

    def _rows(self, first: int, last: int) -> Iterator[pa.Table]:
        """Rows of batches [first, last) of the epoch."""
        blocks, skip = self._blocks(), first * self.batch
        rest: pa.Table | None = None
        for number, block in enumerate(blocks):
            size = sum(map(len, block))
            if rest is None and skip >= size:
                skip -= size
                continue
            rows = self._shuffled(block, number).slice(skip)
            skip, rest = 0, rows if rest is None else pa.concat_tables([rest, rows])
            while len(rest) >= self.batch and first < last:
                yield rest.slice(0, self.batch)
                rest, first = rest.slice(self.batch), first + 1

    def _blocks(self) -> list[list[Piece]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.groups))
        blocks: list[list[Piece]] = [[]]
        for piece in share([self.groups[i] for i in order], self.rank.rank, self.rank.world):
            if sum(map(len, blocks[-1])) >= self.shuffle_requests:
                blocks.append([])
            blocks[-1].append(piece)
        return blocks

    def _shuffled(self, block: list[Piece], number: int) -> pa.Table:
        rows = pa.concat_tables([p.read() for p in block])
        rng = np.random.default_rng((self.seed, self.epoch, self.rank.rank, number, 1))
        return rows.take(rng.permutation(len(rows)))


def in_order(
    files: list[str], items: ItemTable, schema: FeatureSchema, *, batch: int, rank: Rank, sequence_length: int | None
) -> Iterator[RankingBatch]:
    """This rank's share of all rows, once, in order, without downsampling: what is measured."""
    for piece in share(row_groups(files), rank.rank, rank.world):
        rows = piece.read()
        for start in range(0, len(rows), batch):
            yield collate(rows.slice(start, batch), items, schema, sequence_length=sequence_length)
