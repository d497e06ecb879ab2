"""Items related to items: the nearest by the vectors that `embed` made, newcomers included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.errors import UserError
from components.history.items import ItemTable
from components.history.schema import FeatureSchema
from components.retrieval import VectorIndex
from pinloom.graph.newcomers import Newcomers
from pinloom.lake import Lake, Manifest
from pinloom.serving.retrieval import Retriever, Rows, UserState, recent_positives

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

LOOKED_AT = 1000
"""Vectors whose length tells that of all."""

UNIT = 2e-3
"""How far half precision may take a length away from 1."""


@dataclass(frozen=True)
class RelatedItems:
    """The index, in rows of the item table that is served.

    Attributes:
        index: over rows of the catalogue that was embedded.
        vectors: fp16 [M, d] of that catalogue, memory-mapped.
        served: int32 [M], row of the served item table of each row of that catalogue; 0 = not served.
        version: of the vectors.
    """

    items: ItemTable
    index: VectorIndex
    vectors: NDArray[np.float16]
    served: Rows
    version: str
    newcomers: Newcomers

    @classmethod
    def load(cls, lake: Lake, manifest: Manifest, items: ItemTable, schema: FeatureSchema) -> Self:
        """Open what step `index` published, for the item table that is served."""
        files = {uri.rsplit("/", 1)[-1]: str(lake.local_path(uri)) for uri in manifest.output("index").uris}
        return cls(
            items=items,
            index=VectorIndex.load(files),
            vectors=np.load(files["vectors.npy"], mmap_mode="r"),
            served=items.rows_of_keys(np.load(files["keys.npy"], mmap_mode="r")),
            version=str(manifest.metrics["vectors"]),
            newcomers=Newcomers.load(lake, lake.manifest(manifest.inputs["embed"]["uri"]), schema),
        )

    @cached_property
    def _embedded(self) -> Rows:
        """Row in the embedded catalogue of each row of the served table, 0 = none. int32 [N]."""
        row = np.zeros(len(self.items), np.int32)
        row[self.served] = np.arange(len(self.served), dtype=np.int32)
        row[0] = 0
        return row

    @cached_property
    def _rows(self) -> Rows:
        """Row of the served table at each position of the index."""
        return self.served[self.index.rows]

    @cached_property
    def _present(self) -> Mask | None:
        """Positions of the index whose item is served; None where all are: nothing to be filtered."""
        present = self._rows > 0
        return None if present.all() else present

    @cached_property
    def _most(self) -> float:
        """The largest inner product there can be: 1 where all vectors have length 1, rounded as they are."""
        sample = self.of_embedded(np.linspace(0, len(self.vectors) - 1, LOOKED_AT).astype(np.int64))
        length = np.linalg.norm(sample[sample.any(axis=1)], axis=1)
        return 1.0 if (np.abs(length - 1) < UNIT).all() else np.inf

    def known(self, ids: Sequence[str]) -> Rows:
        """Rows of items that are asked about.

        Raises:
            UserError: one is not in the snapshot, or has no vector.
        """
        rows = self.items.rows(ids)
        missing = np.flatnonzero(~self.of_rows(rows).any(axis=1))
        if len(missing):
            raise UserError(
                f"item '{ids[missing[0]]}' is not in the served catalogue or has no vector",
                "send it as `item` with its features, or wait for the next snapshot",
            )
        return rows

    def retriever(self, schema: FeatureSchema) -> Retriever:
        return VectorNeighbours(self, schema)

    def of_rows(self, rows: Rows) -> Floats:
        """Vectors of rows of the served table. float32 [n, d], zero where there is none."""
        return self.of_embedded(self._embedded[rows])

    def of_embedded(self, rows: NDArray[np.integer]) -> Floats:
        """Vectors of rows of the catalogue that was embedded. float32 [n, d]."""
        return np.asarray(self.vectors[rows], np.float32)

    def nearest(self, queries: Floats, k: int, allowed: Mask | None = None) -> tuple[Rows, Floats]:
        """The k rows of the served table with the largest inner product with any query, best first, never row 0.

        Args:
            queries: float32 [Q, d].
            allowed: bool [N], rows that may be found; None = all.
        """
        within = self._present if allowed is None else (self._rows > 0) & allowed[self._rows]
        found, products = self.index.search(queries, k, within)
        real = found >= 0
        rows, products = self.served[found[real]], products[real]
        order = np.lexsort((rows, -products))
        _, first = np.unique(rows[order], return_index=True)
        best = order[np.sort(first)][:k]
        return rows[best].astype(np.int32), np.minimum(products[best], self._most)

    def allowed(self, categories: Sequence[str], exclude: Rows) -> Mask:
        """bool [N]: rows of one of the categories (none named: all), without `exclude`."""
        mask = np.ones(len(self.items), bool)
        if categories:
            mask = self.items.category.is_in(list(categories)).fill_null(False).to_numpy().copy()
        mask[exclude] = False
        return mask


class VectorNeighbours:
    """Candidates near the user's recent positives, by the index."""

    def __init__(self, related: RelatedItems, schema: FeatureSchema, recent: int = 20) -> None:
        self.name = related.version.partition("-")[0]
        self._related = related
        self._positive = schema.positive
        self._recent = recent

    def candidates(self, user: UserState, k: int) -> Rows:
        seeds = recent_positives(user.history, self._positive, self._recent)
        queries = self._related.of_rows(seeds)
        queries = queries[queries.any(axis=1)]
        return self._related.nearest(queries, k)[0] if len(queries) else np.zeros(0, np.int32)
