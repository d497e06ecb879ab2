"""Scores of an artifact on the rows of any features manifest, read with the vectors that it was trained with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.errors import UserError
from components.evaluation.metrics import Floats, top_share
from components.evaluation.rows import Rows
from components.history.items import ItemTable
from components.history.schema import FeatureSchema
from components.models.ranker import RankerArtifact, collate, load_ranker
from pinloom.features.vectors import encoded_as, trained_on, version
from pinloom.graph.newcomers import embedded_as
from pinloom.lake import Lake, Manifest

BATCH_CANDIDATES = 8_192


@dataclass(frozen=True)
class Scores:
    """One ranker's scores of N rows.

    Attributes:
        final: what candidates are ordered by, float32 [N].
        heads: probability per head, float32 [N, H]; None for a rival that only orders.
    """

    final: NDArray[np.float32]
    heads: NDArray[np.float32] | None = None
    _share: dict[int, Floats] = field(default_factory=dict, repr=False, compare=False)

    def top_share(self, rows: Rows, k: int) -> Floats:
        """`metrics.top_share` of the final score, computed once."""
        if k not in self._share:
            self._share[k] = top_share(self.final, rows.offsets, k)
        return self._share[k]

    def of_head(self, head: int) -> NDArray[np.float32] | None:
        return None if self.heads is None else self.heads[:, head]


def open_items(lake: Lake, features: Manifest) -> ItemTable:
    paths = {p.name: p for p in map(lake.local_path, features.output("items").uris)}
    return ItemTable.load(paths)


def open_schema(lake: Lake, features: Manifest) -> FeatureSchema:
    return FeatureSchema.load(lake.local_path(features.file("schema", "schema.json")))


def open_rows(lake: Lake, features: Manifest, split: str, most: int | None = None, output: str = "examples") -> Rows:
    """Rows of a split of `examples`, or of `full_requests`: everything that could have been shown.

    Raises:
        UserError: the features have no such split.
    """
    table = features.output(output)
    uris = table.partition(split)
    if not uris:
        raise UserError(
            f"{features.uri} has no {output} of split '{split}' (it has: {', '.join(table.partitions()) or 'none'})",
            "build features over an interval that covers the split's dates",
        )
    return Rows.read([lake.local_path(u) for u in uris], open_schema(lake, features), most)


def open_artifact(lake: Lake, train: Manifest) -> RankerArtifact:
    """The ranker that a `train` manifest published."""
    return load_ranker(lake.local_folder(train.output("artifact")))


def items_for(lake: Lake, artifact: RankerArtifact, train: Manifest, features: Manifest) -> ItemTable:
    """The item table of `features` with vectors as those of `train`, the artifact's run: so it would be served.

    Raises:
        UserError: the artifact's vectors cannot be made again.
    """
    return items_as(lake, artifact, trained_on(lake, train), features)


def items_as(lake: Lake, artifact: RankerArtifact, origin: Manifest, features: Manifest) -> ItemTable:
    """The item table of `features` with vectors of the version that `artifact` was trained with.

    Where `features` have others, those of all its items are made as `origin`, the features of training, made theirs.

    Raises:
        UserError: the artifact's vectors cannot be made again.
    """
    table = open_items(lake, features)
    if artifact.vectors == version(features):
        return table
    if artifact.vectors != version(origin):
        raise UserError(
            f"a model reads vectors '{artifact.vectors}', its features have '{version(origin)}' ({origin.uri})",
            "train it again on the features that are there",
        )
    if "encoder" in origin.outputs:
        return replace(table, vectors=encoded_as(lake, origin, features))
    return replace(table, vectors=embedded_as(lake, origin, features, table))


def score(artifact: RankerArtifact, rows: Rows, items: ItemTable) -> Scores:
    """Score every row. The numeric columns are found by name, so that a table with more of them will do.

    Raises:
        UserError: the rows lack a feature that the artifact reads.
    """
    view = _as_trained(artifact, rows)
    heads = np.empty((len(rows), len(artifact.heads)), np.float32)
    final = np.empty(len(rows), np.float32)
    for first, last in _batches(rows.offsets):
        batch = collate(view[first:last].to_arrow(), items, artifact.schema)
        probability, combined = artifact.score(batch)
        span = slice(rows.offsets[first], rows.offsets[last])
        heads[span], final[span] = probability.numpy(), combined.numpy()
    return Scores(final, heads)


def _batches(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of whole requests with about `BATCH_CANDIDATES` rows each."""
    first, requests = 0, len(offsets) - 1
    while first < requests:
        last = int(np.searchsorted(offsets, offsets[first] + BATCH_CANDIDATES, side="right")) - 1
        last = min(max(last, first + 1), requests)
        yield first, last
        first = last


def _as_trained(artifact: RankerArtifact, rows: Rows) -> pl.DataFrame:
    """The request frame with the numeric columns in the artifact's order."""
    frame = rows.requests
    for column in ("candidate_numeric", "user_numeric"):
        have, want = getattr(rows.schema, column), getattr(artifact.schema, column)
        if have == want:
            continue
        if missing := [name for name in want if name not in have]:
            raise UserError(
                f"the model reads {column} {', '.join(missing)}, which these features do not have",
                "evaluate it on the features that it was trained with, or train it again",
            )
        frame = frame.with_columns(_reordered(frame[column], have, want))
    if _meaning(rows.schema) != _meaning(artifact.schema):
        raise UserError(
            "the model was trained with other heads, actions or categorical columns than these features have",
            "evaluate it on the features that it was trained with, or train it again",
        )
    return frame


def _reordered(column: pl.Series, have: tuple[str, ...], want: tuple[str, ...]) -> pl.Series:
    flat = column.explode(empty_as_null=False).to_numpy().reshape(-1, len(have))
    chosen = flat[:, [have.index(name) for name in want]]
    length = column.list.len() // len(have) * len(want)
    owner = np.repeat(np.arange(len(column)), length.to_numpy())
    grouped = pl.DataFrame({"owner": owner, "value": chosen.ravel()}).group_by("owner", maintain_order=True)
    return grouped.agg("value")["value"].alias(column.name)


def _meaning(schema: FeatureSchema) -> tuple[tuple[str, ...], ...]:
    return schema.heads, schema.actions, schema.categorical
