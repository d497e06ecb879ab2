"""Example rows become batches: flat values and offsets, no loop over rows.

A block of rows is a `pyarrow.Table` (or a mapping of lists) with the columns of
`components.history.schema.EXAMPLE_COLUMNS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.history.build import NEVER_DAYS, Example
from components.history.items import ItemTable
from components.history.schema import FeatureSchema
from components.history.statistics import DAY
from components.models.ranker.batch import RankingBatch, Sequence
from components.models.source import Piece

COLUMNS = (
    "user_id",
    "timestamp",
    "history_item",
    "history_action",
    "history_timestamp",
    "history_surface",
    "candidate_item",
    "candidate_hash",
    "candidate_surface",
    "candidate_numeric",
    "candidate_sampling",
    "labels",
    "user_hash",
    "user_numeric",
)
"""What `collate` reads; `request_id` only names rows."""

Array = NDArray[Any]


class _Lists:
    """One list column: `values` flat, row i at [offsets[i], offsets[i + 1])."""

    def __init__(self, column: pa.Array) -> None:
        self.values: Array = column.flatten().to_numpy(zero_copy_only=False)
        self.lengths: Array = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        self.offsets: Array = np.concatenate([[0], np.cumsum(self.lengths)])

    def padded(self, length: int) -> Array:
        """[rows, length]: the first `length` values of each row, then zeros."""
        if not len(self.values):
            return np.zeros((len(self.lengths), length), self.values.dtype)
        column = np.arange(length)
        at = np.minimum(self.offsets[:-1, None] + column, len(self.values) - 1)
        return np.where(column < self.lengths[:, None], self.values[at], 0)


def collate(
    rows: pa.Table,
    items: ItemTable,
    schema: FeatureSchema,
    *,
    sequence_length: int | None = None,
    negatives: int = 0,
    rng: np.random.Generator | None = None,
    surface_dropout: float = 0.0,
    weights: pl.DataFrame | None = None,
) -> RankingBatch:
    """Requests as tensors, the history padded to the longest of the batch.

    Args:
        rows: one row per request (`COLUMNS`).
        sequence_length: newest actions to keep (default: the schema's).
        negatives: rows without any action to keep per request, drawn by `rng` (0 = all).
        surface_dropout: chance of a request, drawn by `rng`, that the surfaces of all its candidates are hidden.
        weights: `user_id`, `weight` of users in the loss (default: 1 for everybody).
    """
    block = rows.combine_chunks()
    columns = {name: _column(block, name) for name in COLUMNS if name not in ("user_id", "timestamp", "user_hash")}
    lists = {name: _Lists(column) for name, column in columns.items()}
    labels = lists["labels"].values
    row_of = np.repeat(np.arange(len(block)), lists["labels"].lengths)
    most = negatives if rng is not None else 0
    rate = np.ones(len(labels), np.float32)
    kept = np.arange(len(labels))
    if most and rng is not None:
        kept, rate = _downsample(labels, row_of, most, rng)
    surface = lists["candidate_surface"].values
    if surface_dropout and rng is not None:
        surface = np.where(rng.random(len(block))[row_of] < surface_dropout, 0, surface)
    stored = lists["candidate_sampling"].values
    sampling = stored * rate
    length = min(sequence_length or schema.sequence_length, int(lists["history_item"].lengths.max(initial=1)))
    item = lists["candidate_item"].values[kept]
    numeric = lists["candidate_numeric"].values.reshape(-1, len(schema.candidate_numeric))
    heads = np.arange(len(schema.heads))
    at = _microseconds(block)
    return RankingBatch(
        sequence=_sequence(lists, at, items, max(length, 1)),
        candidate_vector_BD=_float(items.vectors[item]),
        candidate_key_B=_int(items.keys[item]),
        candidate_hash_B=_int(lists["candidate_hash"].values[kept]),
        candidate_categorical_BC=_int(items.categorical[item]),
        candidate_surface_B=_int(surface[kept]),
        candidate_numeric_BF=_float(numeric[kept]),
        candidate_age_B=_float(_age(items.created[item], at[row_of[kept]])),
        user_hash_U=_int(block["user_hash"].to_numpy()),
        user_weight_U=_float(_weights(block, weights)),
        user_numeric_UG=_float(lists["user_numeric"].values.reshape(-1, len(schema.user_numeric))),
        row_of_B=_int(row_of[kept]),
        labels_BH=_float(labels[kept, None] >> heads & 1),
        negative_rate_U=_float(_negative_rate(labels == 0, stored, row_of, len(block), most)),
        sampling_B=_float(sampling[kept]),
    )


def collate_example(example: Example, at: int, items: ItemTable, schema: FeatureSchema) -> RankingBatch:
    """The batch of one online request.

    Args:
        at: moment of the request, µs since epoch.
    """
    n = len(example.candidate_item)
    columns: dict[str, Any] = {
        **example.columns(),
        "labels": np.zeros(n, np.int32),
        "candidate_sampling": np.ones(n, np.float32),
    }
    row: dict[str, Any] = {name: [value] for name, value in columns.items()}
    row["timestamp"] = pa.array([at], pa.timestamp("us", "UTC"))
    return collate(pa.table({**row, "user_id": [""]}), items, schema)


def _column(block: pa.Table, name: str) -> pa.Array:
    column = block[name]
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _microseconds(block: pa.Table) -> Array:
    moments: Array = block["timestamp"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    return moments


def _weights(block: pa.Table, weights: pl.DataFrame | None) -> Array:
    if weights is None:
        return np.ones(len(block), np.float32)
    users = pl.DataFrame({"user_id": pl.from_arrow(block["user_id"])})
    found = users.join(weights, on="user_id", how="left", maintain_order="left")["weight"]
    return found.fill_null(1.0).to_numpy()


def _sequence(lists: dict[str, _Lists], at: Array, items: ItemTable, length: int) -> Sequence:
    part = {name: lists[f"history_{name}"].padded(length) for name in ("item", "action", "timestamp", "surface")}
    return Sequence(
        vector_ULD=_float(items.vectors[part["item"]]),
        item_key_UL=_int(items.keys[part["item"]]),
        action_UL=_int(part["action"]),
        timestamp_UL=_int(part["timestamp"]),
        surface_UL=_int(part["surface"]),
        request_time_U=_int(at),
    )


def _age(created: Array, at: Array) -> Array:
    """Days; 0 for an item whose first moment is still to come: its future is not known yet."""
    return np.where(created < 0, NEVER_DAYS, np.maximum(at - created, 0) / DAY)


def _downsample(labels: Array, row_of: Array, keep: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """All rows with an action and `keep` random others per request: their indices, and the share kept, of all rows."""
    negative = labels == 0
    order = np.lexsort((np.where(negative, rng.random(len(labels)), -1.0), row_of))
    count = np.bincount(row_of, negative, minlength=int(row_of.max(initial=0)) + 1)
    first_negative = np.searchsorted(row_of, np.arange(len(count))) + np.bincount(
        row_of, ~negative, minlength=len(count)
    )
    rank = np.arange(len(labels)) - first_negative[row_of]
    rate = np.where(negative, np.minimum(1.0, keep / np.maximum(count, 1))[row_of], 1.0)
    return np.sort(order[rank < keep]), rate.astype(np.float32)


def _negative_rate(negative: Array, sampling: Array, row_of: Array, requests: int, most: int) -> Array:
    """Share of a request's rows without action that are stored, or `most` (0 = all) of all its rows if that is less.

    Not of those without action: the rate must not depend on a row's own label, or it would bias small requests.
    """
    count = np.bincount(row_of, negative, minlength=requests)
    idle = np.bincount(row_of, negative / sampling, minlength=requests)
    shown = np.bincount(row_of, 1 / sampling, minlength=requests)
    rate = np.where(count > 0, count / np.maximum(idle, 1e-9), 1.0)
    return np.minimum(rate, most / np.maximum(shown, 1e-9)) if most else rate


@dataclass(frozen=True)
class RowSummary:
    """What training rows are made of.

    Attributes:
        per_request: rows per request after downsampling.
        kept: share of all rows without action, shown or not stored, that training keeps.
        log_odds: of each head among all rows that were shown, kept or not, [H].
    """

    per_request: float
    kept: float
    log_odds: tuple[float, ...]


def summarize(pieces: list[Piece], heads: int, negatives: int) -> RowSummary:
    """Read the labels of the rows once; training keeps `negatives` rows without action per request."""
    requests = acted = kept = idle_shown = shown = 0.0
    happened = np.zeros(heads)
    for piece in pieces:
        block = piece.read(["labels", "candidate_sampling"]).combine_chunks()
        labels, sampling = _Lists(_column(block, "labels")), _Lists(_column(block, "candidate_sampling"))
        idle = labels.values == 0
        per_request = np.bincount(np.repeat(np.arange(len(block)), labels.lengths), idle, minlength=len(block))
        requests, acted = requests + len(block), acted + float(np.sum(~idle))
        kept += float((np.minimum(per_request, negatives) if negatives else per_request).sum())
        stands_for = 1 / sampling.values
        idle_shown, shown = idle_shown + float(stands_for[idle].sum()), shown + float(stands_for.sum())
        happened += stands_for @ (labels.values[:, None] >> np.arange(heads) & 1)
    # One more of each kind: a head that never happened has a rate all the same.
    odds = (happened + 1) / (shown - happened + 1)
    rate = kept / idle_shown if idle_shown else 1.0
    return RowSummary((acted + kept) / max(requests, 1), rate, tuple(np.log(odds).tolist()))


def _float(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _int(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values, np.int64))
