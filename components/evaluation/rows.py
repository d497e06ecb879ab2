"""Ranking rows as flat arrays: what rivals score and what every metric reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.errors import UserError
from components.evaluation.metrics import Bools, Floats, Ints, request_of
from components.history.keys import keys, mix
from components.history.schema import FeatureSchema


@dataclass(frozen=True)
class Rows:
    """R requests with N candidates in all, one request after another.

    Attributes:
        requests: the frame of `EXAMPLE_COLUMNS`, [R].
        schema: names of the numeric columns and of the heads.
    """

    requests: pl.DataFrame
    schema: FeatureSchema

    @classmethod
    def read(cls, files: Sequence[str | Path], schema: FeatureSchema, most: int | None = None) -> Rows:
        """Rows of Parquet files; of more than `most` requests those with the lowest hash of their id.

        Raises:
            UserError: the files hold no request.
        """
        found = pl.scan_parquet([str(f) for f in files])
        if most is not None:
            ids = found.select("request_id").collect()["request_id"]
            drawn = np.argsort(mix(keys(ids), seed=7), kind="stable")[:most]
            at = pl.Series(np.sort(drawn), dtype=pl.UInt32)
            found = found.with_row_index("_at").filter(pl.col("_at").is_in(at.implode())).drop("_at")
        requests = found.collect()
        if requests.is_empty():
            raise UserError(
                f"there is no request in {files[0] if files else 'the split'}",
                "widen the split's dates in the data set's YAML, or ingest the days it covers",
            )
        return cls(requests, schema)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def take(self, requests: NDArray[np.integer]) -> Rows:
        """Some of the requests, by index."""
        return Rows(self.requests[requests], self.schema)

    @cached_property
    def offsets(self) -> Ints:
        """int64 [R + 1]: where the rows of each request begin."""
        return np.concatenate([[0], np.cumsum(self.requests["candidate_item"].list.len().to_numpy(), dtype=np.int64)])

    @cached_property
    def owner(self) -> Ints:
        """Index of the request of each row, [N]."""
        return request_of(self.offsets)

    def flat(self, column: str) -> NDArray[np.generic]:
        """A list column with one value per candidate, [N]."""
        return self.requests[column].explode(empty_as_null=False).to_numpy()

    @cached_property
    def item(self) -> NDArray[np.generic]:
        return self.flat("candidate_item")

    @cached_property
    def numeric(self) -> NDArray[np.float32]:
        """float32 [N, len(schema.candidate_numeric)]."""
        return self.flat("candidate_numeric").astype(np.float32).reshape(len(self), -1)

    def column(self, name: str) -> NDArray[np.float32]:
        """One of `schema.candidate_numeric`, [N]."""
        return self.numeric[:, self.schema.candidate_numeric.index(name)]

    def user_column(self, name: str) -> NDArray[np.float32]:
        """One of `schema.user_numeric`, [R]."""
        flat = self.requests["user_numeric"].explode(empty_as_null=False).to_numpy()
        return flat.reshape(self.requests.height, -1)[:, self.schema.user_numeric.index(name)].astype(np.float32)

    @cached_property
    def user_of(self) -> Ints:
        """Index of the user of each request, from 0 without gaps, int64 [R]."""
        return self.requests["user_id"].rank("dense").to_numpy().astype(np.int64) - 1

    @cached_property
    def weights(self) -> Floats:
        """1 / probability with which each row was kept, [N]."""
        return 1.0 / np.maximum(self.flat("candidate_sampling").astype(np.float64), 1e-9)

    @cached_property
    def labels(self) -> Bools:
        """Whether each head happened, bool [N, H]."""
        bits = self.flat("labels").astype(np.int64)
        return (bits[:, None] >> np.arange(len(self.schema.heads)) & 1).astype(bool)

    def happened(self, heads: Sequence[str]) -> Bools:
        """Whether any of the heads happened, [N]."""
        at = [self.schema.heads.index(h) for h in heads]
        return np.asarray(self.labels[:, at].any(axis=1))
