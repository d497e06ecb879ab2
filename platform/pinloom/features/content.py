"""Content vectors: declared item features to 32 numbers, by an encoder that is fitted once and then kept.

An encoder is a function of an item's declared features alone. So the snapshots of following days agree on the items
that they share, bit for bit, and a model trained on one of them can be served with the next, new items included.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD

from pinloom.datasets.spec import FeatureSpec
from pinloom.features.blocks import Block, fit_blocks, from_plain, to_plain

DIM = 32
FORMAT = 1
"""Raised by hand when the same files would mean other vectors."""

DESCRIPTION, COMPONENTS = "encoder.json", "components.npy"


@dataclass(frozen=True)
class Encoder:
    """Blocks of columns, then a projection onto 32 directions.

    Attributes:
        declared: what of the data set's declaration it was fitted for.
        blocks: in the order of the projection's rows.
        components_FD: float32 [F, D], F the width of all blocks, D ≤ 32 where items have fewer dimensions.
    """

    declared: dict[str, list[str]]
    blocks: tuple[Block, ...]
    components_FD: NDArray[np.float32]

    @classmethod
    def fit(cls, items: pl.DataFrame, spec: FeatureSpec, seed: int = 0) -> Self:
        """Vocabularies, scales and the leading directions of `items` (truncated SVD with fixed signs).

        Raises:
            UserError: a declared column that items lack, or vectors of different lengths.
        """
        blocks = tuple(fit_blocks(items, spec))
        return cls(declaration(spec), blocks, _directions(_stacked(blocks, items), seed))

    def encode(self, items: pl.DataFrame) -> NDArray[np.float16]:
        """One vector per row of `items`, each of the row alone.

        Returns:
            fp16 [N, 32], rows of length 1; zero where nothing that the encoder knows is said of an item.

        Raises:
            UserError: a column is missing, or given vectors have another length than those fitted on.
        """
        vectors = np.zeros((items.height, DIM), np.float32)
        kept = self.components_FD.shape[1]
        if kept and items.height:
            vectors[:, :kept] = _stacked(self.blocks, items) @ self.components_FD
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-6).astype(np.float16)

    def fits(self, spec: FeatureSpec) -> bool:
        """Whether it encodes what is declared now. Other features of `spec` do not enter the vectors."""
        return self.declared == declaration(spec)

    @cached_property
    def version(self) -> str:
        """Names the vectors that it makes: a hash of all that they depend on beside the item."""
        content = hashlib.sha256()
        for _, part in sorted(self.files.items()):
            content.update(part)
        return f"content-{content.hexdigest()[:16]}"

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Content by file name, equal for equal encoders."""
        components = io.BytesIO()
        np.save(components, self.components_FD, allow_pickle=False)
        said = {"format": FORMAT, "declared": self.declared, "blocks": [to_plain(b) for b in self.blocks]}
        return {DESCRIPTION: json.dumps(said).encode(), COMPONENTS: components.getvalue()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self | None:
        """The encoder in `files`; None when they are of another format."""
        said: dict[str, Any] = json.loads(files[DESCRIPTION])
        if said["format"] != FORMAT:
            return None
        components = np.load(io.BytesIO(files[COMPONENTS]), allow_pickle=False)
        return cls(said["declared"], tuple(from_plain(b) for b in said["blocks"]), components)


def declaration(spec: FeatureSpec) -> dict[str, list[str]]:
    """The part of a declaration that item vectors depend on."""
    return {kind: list(getattr(spec, kind)) for kind in ("categorical", "text", "numeric", "vectors")}


def _stacked(blocks: tuple[Block, ...], items: pl.DataFrame) -> sparse.csr_matrix:
    if not blocks:
        return sparse.csr_matrix((items.height, 0), dtype=np.float32)
    return sparse.hstack([sparse.csr_matrix(b.encode(items)) for b in blocks]).tocsr().astype(np.float32)


def _directions(stacked: sparse.csr_matrix, seed: int) -> NDArray[np.float32]:
    """Right singular vectors, float32 [F, D]; the largest entry of each is positive."""
    kept = min(DIM, min(stacked.shape) - 1)
    if kept <= 0 or not stacked.nnz:
        return np.zeros((stacked.shape[1], 0), np.float32)
    found = TruncatedSVD(kept, random_state=seed).fit(stacked).components_
    largest = np.abs(found).argmax(axis=1)
    signed = found * np.sign(found[np.arange(kept), largest])[:, None]
    return np.ascontiguousarray(signed.T, dtype=np.float32)
