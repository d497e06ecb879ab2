"""Edges of the graph as the data set declares them, a bounded piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.contract import Role
from components.errors import UserError
from components.history.keys import keys
from components.history.log import with_rows
from pinloom.datasets import DatasetSpec
from pinloom.datasets.graph import EdgeSpec
from pinloom.features.buckets import groups_of, read_buckets
from pinloom.lake import Lake, Manifest
from pinloom.lake.manifest import Output

ROWS = 1_000_000
"""Rows of a table read at once."""


@dataclass(frozen=True)
class Edges:
    """
    Attributes:
        items: int32 [n], rows of the item table; 0 = the features do not know the item.
        boards: int64 [n], keys.
        weights: float32 [n].
        undated: how many have no time.
    """

    items: NDArray[np.int32]
    boards: NDArray[np.int64]
    weights: NDArray[np.float32]
    undated: int


@dataclass(frozen=True)
class EdgeSource:
    """Reads the table pointer's manifest `table` for edges before `until`."""

    lake: Lake
    table: Manifest
    spec: DatasetSpec
    item_ids: pl.Series
    until: datetime

    def __iter__(self) -> Iterator[Edges]:
        for declared in self.spec.graph.edges:
            rows = self._of_boards() if declared.source == "boards" else self._of_actions(declared)
            for frame in rows:
                yield self._edges(frame, declared.weight)

    def expected(self) -> int:
        """At most so many edges will come."""
        return sum(self.table.outputs.get(e.source, Output()).rows for e in self.spec.graph.edges)

    def _of_boards(self) -> Iterator[pl.DataFrame]:
        """`board` (its id with its kind), `item_id`, `timestamp`."""
        found = self.table.outputs.get("boards", Output())
        if not found.rows:
            raise UserError(
                f"{self.spec.name} has no boards to build a graph from",
                "fill source.tables.boards, or let actions make the edges: graph.edges: [{source: actions}]",
            )
        for frame in read_pieces(self.lake, found, ["board_id", "item_id", "timestamp"]):
            past = frame.filter(pl.col("timestamp").is_null() | (pl.col("timestamp") < self.until))
            yield past.select(_named("board", pl.col("board_id")), "item_id", "timestamp")

    def _of_actions(self, declared: EdgeSpec) -> Iterator[pl.DataFrame]:
        contract = self.spec.contract
        columns = ["user_id", "item_id", "action", "timestamp", "session_id"]
        wanted = declared.actions or contract.names(Role.POSITIVE)
        table = self.table.output("actions")
        # All actions keep a session going, whichever of them become edges.
        needed = None if declared.board == "session" else wanted
        for group in groups_of(contract.buckets, table):
            rows = read_buckets(self.lake, table, group, columns, self.until, needed)
            if declared.board == "session":
                rows = with_sessions(rows, contract.session_gap_minutes).filter(pl.col("action").is_in(wanted))
            yield rows.select(_named(declared.board, pl.col(f"{declared.board}_id")), "item_id", "timestamp")

    def _edges(self, frame: pl.DataFrame, weight: float) -> Edges:
        # A board has many rows: hash each id once.
        boards = frame["board"].unique()
        keyed = pl.DataFrame({"board": boards, "key": keys(boards)}, schema={"board": pl.String, "key": pl.Int64})
        frame = with_rows(frame.join(keyed, on="board", maintain_order="left", how="left"), self.item_ids)
        weights = np.full(frame.height, weight)
        if self.spec.graph.half_life_days is not None:
            age = (self.until - frame["timestamp"]).dt.total_microseconds().fill_null(0).to_numpy()
            weights *= 0.5 ** (age / (86_400e6 * self.spec.graph.half_life_days))
        undated = frame["timestamp"].null_count()
        return Edges(frame["item"].to_numpy(), frame["key"].to_numpy(), weights.astype(np.float32), undated)


def read_pieces(lake: Lake, table: Output, columns: list[str]) -> Iterator[pl.DataFrame]:
    """Rows of all files, by partition, at most `ROWS` at once."""
    for uri in table.uris:
        with lake.fs.open(uri) as raw:
            for batch in pq.ParquetFile(raw).iter_batches(ROWS, columns=columns):
                yield pl.DataFrame(pl.from_arrow(batch))


def with_sessions(rows: pl.DataFrame, gap_minutes: float) -> pl.DataFrame:
    """A `session_id` for rows without one: user and start of the session by the declared gap, over all the user's rows.

    Given ids are kept, with the user, since a log may number sessions per user.
    """
    rows = rows.sort("user_id", "timestamp", maintain_order=True)
    pause = pl.col("timestamp").diff().over("user_id")
    begins = pause.is_null() | (pause > pl.duration(seconds=round(gap_minutes * 60)))
    start = pl.when(begins).then(pl.col("timestamp").dt.epoch("us")).forward_fill().over("user_id")
    session = pl.coalesce("session_id", start.cast(pl.String))
    return rows.with_columns(session_id=pl.concat_str("user_id", session, separator="/"))


def _named(kind: str, board: pl.Expr) -> pl.Expr:
    """Boards of several kinds in one graph do not meet."""
    return pl.concat_str(pl.lit(f"{kind}/"), board).alias("board")
