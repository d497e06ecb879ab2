"""Content vectors: declared item features to 32 numbers, by one-hot, TF-IDF, scaling and truncated SVD."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from components.contract import FEATURE_PREFIX
from components.errors import UserError
from pinloom.datasets.spec import FeatureSpec

DIM = 32
MAX_CATEGORIES = 4096
"""Values of one categorical column that get a dimension before the SVD; rarer ones have none."""

MAX_TERMS = 16_384


def column(items: pl.DataFrame, name: str) -> pl.Series:
    """A declared feature: `features.<name>`, else the contract's own column (`category`, `title`).

    Raises:
        UserError: there is no such column.
    """
    for candidate in (FEATURE_PREFIX + name, name):
        if candidate in items.columns:
            return items[candidate]
    have = ", ".join(c.removeprefix(FEATURE_PREFIX) for c in items.columns if c.startswith(FEATURE_PREFIX))
    raise UserError(
        f"`features` of the data set names '{name}', but items have no column '{FEATURE_PREFIX}{name}'",
        f"declare it under `source`, or name one of: {have or 'none'}, category, title",
    )


def content_vectors(items: pl.DataFrame, spec: FeatureSpec, seed: int = 0) -> NDArray[np.float16]:
    """One vector per row of `items`.

    Each declared feature is a block whose rows have length at most 1, so that no feature drowns another; the SVD
    of all blocks keeps 32 directions with a fixed sign, and rows are L2-normalised.

    Returns:
        fp16 [N, 32]; zero for items without any declared feature, and where there are fewer dimensions than 32.
    """
    blocks = [sparse.csr_matrix(b) for b in _blocks(items, spec)]
    vectors = np.zeros((items.height, DIM), dtype=np.float32)
    if not blocks or not items.height:
        return vectors.astype(np.float16)
    stacked = sparse.hstack(blocks).tocsr().astype(np.float32)
    kept = min(DIM, min(stacked.shape) - 1)
    if kept > 0 and stacked.nnz:
        svd = TruncatedSVD(kept, random_state=seed)
        reduced = svd.fit_transform(stacked)
        largest = np.abs(svd.components_).argmax(axis=1)
        vectors[:, :kept] = reduced * np.sign(svd.components_[np.arange(kept), largest])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-6).astype(np.float16)


def _blocks(items: pl.DataFrame, spec: FeatureSpec) -> Iterator[sparse.csr_matrix | NDArray[np.float32]]:
    for name in spec.categorical:
        yield _one_hot(column(items, name))
    for name in spec.text:
        texts = column(items, name).cast(pl.String).fill_null("")
        if texts.str.contains(r"\w\w").any():
            yield TfidfVectorizer(max_features=MAX_TERMS, sublinear_tf=True).fit_transform(texts.to_list())
    if spec.numeric:
        scaled = [_scaled(column(items, name)) for name in spec.numeric]
        yield np.stack(scaled, axis=1) / np.sqrt(len(scaled))
    for name in spec.vectors:
        yield _unit_rows(column(items, name), name)


def _one_hot(values: pl.Series) -> sparse.csr_matrix:
    text = values.cast(pl.String).alias("v")
    top = text.drop_nulls().value_counts().sort(["count", "v"], descending=[True, False]).head(MAX_CATEGORIES)
    codes = text.to_frame().join(top.with_row_index("code"), on="v", how="left", maintain_order="left")["code"]
    known = np.flatnonzero(codes.is_not_null().to_numpy())
    return sparse.csr_matrix(
        (np.ones(len(known), np.float32), (known, codes.drop_nulls().to_numpy())),
        shape=(len(values), max(1, top.height)),
    )


def _scaled(values: pl.Series) -> NDArray[np.float32]:
    """Signed log1p, standardised and clipped to [-1, 1] at three deviations; 0 where unknown."""
    raw = values.cast(pl.Float64).fill_nan(None)
    logs = raw.sign() * raw.abs().log1p()
    deviation = logs.std()
    scale = 3.0 * float(deviation) if isinstance(deviation, float) and deviation > 0 else 1.0
    return ((logs - (logs.mean() or 0.0)) / scale).clip(-1, 1).fill_null(0).to_numpy().astype(np.float32)


def _unit_rows(values: pl.Series, name: str) -> NDArray[np.float32]:
    values = values.cast(pl.List(pl.Float32))
    widths = values.drop_nulls().list.len().unique().to_list()
    if len(widths) > 1:
        raise UserError(
            f"vectors of items column '{name}' have different lengths: {sorted(widths)[:5]}",
            "give every item a vector of one length, or null",
        )
    width = int(widths[0]) if widths else 1
    filled = values.fill_null(pl.Series([[0.0] * width])).list.to_array(width)
    rows = filled.to_numpy()
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
