"""Items related to items: the nearest by the vectors that `embed` made, newcomers included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.contract import FEATURE_PREFIX
from components.errors import UserError
from components.history.items import ItemTable
from components.history.keys import hashes
from components.history.schema import FeatureSchema
from components.models.pinsage.artifact import load_pinsage
from components.models.pinsage.catalogue import Catalogue
from components.models.pinsage.inference import embed
from components.models.pinsage.model import PinSage
from components.retrieval import VectorIndex
from pinloom.features.blocks import column
from pinloom.features.content import Encoder
from pinloom.features.vectors import open_encoder
from pinloom.lake import Lake, Manifest
from pinloom.serving.retrieval import Rows, UserState, recent_positives

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Newcomer:
    """Vectors of items that training and the catalogue never saw, from their declared features alone."""

    encoder: Encoder
    model: PinSage
    categorical: tuple[str, ...]

    @classmethod
    def load(cls, lake: Lake, embedded: Manifest, schema: FeatureSchema) -> Self | None:
        """None when the content encoder is of another version of the code."""
        encoder = open_encoder(lake, lake.manifest(embedded.inputs["features"]["uri"]))
        train = lake.manifest(embedded.inputs["train"]["uri"])
        folder = lake.local_path(train.file("artifact", "artifact.json")).parent
        return None if encoder is None else cls(encoder, load_pinsage(folder), schema.categorical)

    def vector(self, item: dict[str, object]) -> Floats:
        """float32 [1, d] of an item without a board.

        Args:
            item: `title`, `category` and features by their declared names; what is left out is unknown.
        """
        declared = [name for names in self.encoder.declared.values() for name in names]
        known = {*declared, *self.categorical}
        if unknown := sorted(set(item) - known - {"title", "category"}):
            raise UserError(
                f"items have no feature '{unknown[0]}'", f"features of an item: {', '.join(sorted(known)) or 'none'}"
            )
        filled = {name: item.get(name) for name in sorted({*known, "title", "category"})}
        own = {n if n in ("title", "category") else f"{FEATURE_PREFIX}{n}": [None, v] for n, v in filled.items()}
        frame = pl.DataFrame(own)
        content = np.concatenate([self.encoder.encode(frame), np.zeros((2, 1))], axis=1).astype(np.float32)
        category = [hashes(column(frame, name).cast(pl.String)) for name in self.categorical]
        none = np.zeros((2, 1), np.int32)
        alone = Catalogue(
            content=content,
            category=np.column_stack(category) if category else np.zeros((2, 0), np.int32),
            neighbours=none,
            weights=none.astype(np.float32),
            degree=np.zeros(2, np.int64),
            band=none,
        )
        return embed(self.model, alone)[1:]


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
    newcomer: Newcomer | None

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
            newcomer=Newcomer.load(lake, lake.manifest(manifest.inputs["embed"]["uri"]), schema),
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

    def of_rows(self, rows: Rows) -> Floats:
        """Vectors of rows of the served table. float32 [n, d], zero where there is none."""
        return np.asarray(self.vectors[self._embedded[rows]], np.float32)

    def nearest(self, queries: Floats, k: int, allowed: Mask | None = None) -> tuple[Rows, Floats]:
        """The k rows of the served table with the largest inner product with any query, best first, never row 0.

        Args:
            queries: float32 [Q, d].
            allowed: bool [N], rows that may be found; None = all.
        """
        served = self._rows > 0
        within = served if allowed is None else served & allowed[self._rows]
        found, products = self.index.search(queries, k, None if within.all() else within)
        real = found >= 0
        rows, products = self.served[found[real]], products[real]
        order = np.lexsort((rows, -products))
        _, first = np.unique(rows[order], return_index=True)
        best = order[np.sort(first)][:k]
        return rows[best].astype(np.int32), products[best]

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
