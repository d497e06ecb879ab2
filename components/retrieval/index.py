"""An index over item vectors (FAISS): exact while that is fast, approximate beyond, its recall measured.

Similarity is the inner product, which is what the vectors were trained for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

EXACT = 100_000
"""Items up to which every vector is compared with: some milliseconds."""

GRAPH = 3_000_000
"""Items up to which a graph of links (HNSW) fits into memory beside the vectors; then inverted lists of bytes."""

INDEX, DESCRIPTION = "items.faiss", "index.json"
EFFORTS = (16, 32, 64, 128, 256, 512)


def choose(items: int) -> str:
    """FAISS' factory string for a catalogue of this size."""
    if items <= EXACT:
        return "Flat"
    if items <= GRAPH:
        return "HNSW32,SQfp16"
    lists = 1 << int(np.log2(4 * np.sqrt(items)))
    return f"IVF{lists},SQ8"


@dataclass(frozen=True)
class VectorIndex:
    """Vectors of some rows of an item table.

    Attributes:
        rows: int64 [n], the row of each indexed vector; rows without a vector are not indexed.
        effort: how many candidates an approximate search looks at (`efSearch`, `nprobe`); unused by an exact one.
    """

    index: Any
    rows: Rows
    kind: str
    effort: int = EFFORTS[0]

    @classmethod
    def build(cls, vectors: Iterable[Floats], items: int, kind: str | None = None) -> Self:
        """Index all rows whose vector is not zero.

        Args:
            vectors: float32 [≤ N, d] pieces of the catalogue in order of the rows.
            items: N.
            kind: factory string; default: by size.
        """
        kind = kind or choose(items)
        kept, positions, start = [], [], 0
        for piece in vectors:
            present = np.flatnonzero(piece.any(axis=1))
            kept.append(np.ascontiguousarray(piece[present], np.float32))
            positions.append(present + start)
            start += len(piece)
        stacked = np.concatenate(kept)
        index = faiss.index_factory(stacked.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(stacked)
        index.add(stacked)
        return cls(index, np.concatenate(positions).astype(np.int64), kind)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_exact(self) -> bool:
        return self.kind == "Flat"

    def search(self, queries: Floats, k: int, allowed: Mask | None = None) -> tuple[Rows, Floats]:
        """The k best rows for each query, best first.

        Args:
            queries: float32 [Q, d].
            allowed: bool [len(self)], by position in `rows`; None = all.

        Returns:
            rows int64 [Q, k] (−1 where fewer were found) and inner products float32 [Q, k].
        """
        k = min(k, len(self))
        selector = None
        if allowed is not None:
            # FAISS keeps a pointer into these bytes.
            packed = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(packed)
        products, positions = self.index.search(
            np.ascontiguousarray(queries, np.float32), k, params=self._how(selector)
        )
        found = np.where(positions >= 0, self.rows[positions], -1)
        return found, products

    def _how(self, selector: Any) -> Any:
        given = {"sel": selector} if selector is not None else {}
        if self.kind.startswith("HNSW"):
            return faiss.SearchParametersHNSW(efSearch=self.effort, **given)
        if self.kind.startswith("IVF"):
            return faiss.SearchParametersIVF(nprobe=self.effort, **given)
        return faiss.SearchParameters(**given) if given else None

    def recall(self, queries: Floats, exact: Rows, k: int) -> float:
        """Share of the exact k nearest rows ([Q, k]) that this index finds."""
        found, _ = self.search(queries, k)
        hits = [len(np.intersect1d(a, b)) for a, b in zip(found, exact[:, :k], strict=True)]
        return float(np.sum(hits) / exact[:, :k].size)

    def tuned(self, queries: Floats, exact: Rows, k: int, goal: float) -> tuple[Self, float]:
        """With the least effort whose recall reaches `goal` (else the most), and that recall."""
        if self.is_exact:
            return self, self.recall(queries, exact, k)
        for effort in EFFORTS:
            tried = type(self)(self.index, self.rows, self.kind, effort)
            recall = tried.recall(queries, exact, k)
            if recall >= goal:
                break
        return tried, recall

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self.index, str(folder / INDEX))
        np.save(folder / "rows.npy", self.rows)
        (folder / DESCRIPTION).write_text(json.dumps({"kind": self.kind, "effort": self.effort}))

    @classmethod
    def load(cls, files: dict[str, str]) -> Self:
        """From local paths by file name; the vectors are mapped where FAISS can (replicas share the pages)."""
        said = json.loads(Path(files[DESCRIPTION]).read_text())
        index = faiss.read_index(files[INDEX], faiss.IO_FLAG_MMAP_IFC)
        return cls(index, np.load(files["rows.npy"], mmap_mode="r"), said["kind"], said["effort"])


def exact_nearest(vectors: Floats, rows: Rows, queries: Floats, k: int) -> Rows:
    """Slow twin: the k rows with the largest inner product, ties by row. [Q, k]."""
    products = queries @ vectors.T
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return rows[order]
