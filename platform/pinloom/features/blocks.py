"""Blocks of a content encoder: one declared feature, or all numbers together, as columns of a sparse matrix.

A block is fitted once and is then a function of a row alone: what it gives an item depends on no other item. Its rows
have length at most 1, so that no feature drowns another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from components.contract import FEATURE_PREFIX
from components.errors import UserError
from components.history.keys import hashes
from pinloom.datasets.spec import FeatureSpec

MAX_CATEGORIES = 4096
"""Values of one categorical column that get a dimension before the SVD; rarer ones have none."""

MAX_TERMS = 16_384


class Block(Protocol):
    """A fitted block: plain values, written as JSON."""

    @property
    def width(self) -> int: ...

    def encode(self, items: pl.DataFrame) -> sparse.csr_matrix | NDArray[np.float32]:
        """Rows of `items` as a matrix [N, width]."""


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


def hashed(items: pl.DataFrame, names: Sequence[str]) -> NDArray[np.int32]:
    """Hashes of categorical columns, as the item table has them. int32 [N, len(names)], 0 = absent."""
    columns = [hashes(column(items, name).cast(pl.String)) for name in names]
    return np.column_stack(columns) if columns else np.zeros((items.height, 0), np.int32)


@dataclass(frozen=True)
class OneHot:
    """A column of words: a dimension for each of the most frequent values."""

    column: str
    values: tuple[str, ...]

    @property
    def width(self) -> int:
        return max(1, len(self.values))

    @classmethod
    def fit(cls, items: pl.DataFrame, name: str) -> Self:
        counts = column(items, name).cast(pl.String).alias("v").drop_nulls().value_counts()
        top = counts.sort(["count", "v"], descending=[True, False]).head(MAX_CATEGORIES)
        return cls(name, tuple(top["v"]))

    def encode(self, items: pl.DataFrame) -> sparse.csr_matrix:
        codes = pl.DataFrame({"v": self.values}, schema={"v": pl.String}).with_row_index("code")
        text = column(items, self.column).cast(pl.String).alias("v").to_frame()
        found = text.join(codes, on="v", how="left", maintain_order="left")["code"]
        known = np.flatnonzero(found.is_not_null().to_numpy())
        at = (known, found.drop_nulls().to_numpy())
        return sparse.csr_matrix((np.ones(len(known), np.float32), at), shape=(items.height, self.width))


@dataclass(frozen=True)
class TfIdf:
    """A column of text: the most frequent words, by sublinear TF-IDF."""

    column: str
    terms: tuple[str, ...]
    idf: tuple[float, ...]

    @property
    def width(self) -> int:
        return len(self.terms)

    @classmethod
    def fit(cls, items: pl.DataFrame, name: str) -> Self | None:
        """None when there is not one word."""
        texts = _texts(items, name)
        if not texts.str.contains(r"\w\w").any():
            return None
        fitted = TfidfVectorizer(max_features=MAX_TERMS, sublinear_tf=True).fit(texts.to_list())
        return cls(name, tuple(fitted.get_feature_names_out().tolist()), tuple(fitted.idf_.tolist()))

    def encode(self, items: pl.DataFrame) -> sparse.csr_matrix:
        vectorizer = TfidfVectorizer(vocabulary=self.terms, sublinear_tf=True)
        vectorizer.idf_ = np.array(self.idf)
        return sparse.csr_matrix(vectorizer.transform(_texts(items, self.column).to_list()), dtype=np.float32)


@dataclass(frozen=True)
class Scaled:
    """All columns of numbers: signed log1p, standardised, clipped to [-1, 1] at three deviations; 0 where unknown."""

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @property
    def width(self) -> int:
        return len(self.columns)

    @classmethod
    def fit(cls, items: pl.DataFrame, names: tuple[str, ...]) -> Self:
        logs = [_signed_log(column(items, name)) for name in names]
        mean = tuple(float(values.drop_nulls().mean() or 0.0) for values in logs)  # type: ignore[arg-type]
        deviations = [float(values.std() or 0.0) for values in logs]  # type: ignore[arg-type]
        return cls(names, mean, tuple(3 * d if d > 0 else 1.0 for d in deviations))

    def encode(self, items: pl.DataFrame) -> NDArray[np.float32]:
        scaled = [
            ((_signed_log(column(items, name)) - mean) / scale).clip(-1, 1).fill_null(0).to_numpy()
            for name, mean, scale in zip(self.columns, self.mean, self.scale, strict=True)
        ]
        return (np.stack(scaled, axis=1) / np.sqrt(len(scaled))).astype(np.float32)


@dataclass(frozen=True)
class Given:
    """A column of vectors of one length, as they are but for their norm; zero where there is none."""

    column: str
    size: int

    @property
    def width(self) -> int:
        return self.size

    @classmethod
    def fit(cls, items: pl.DataFrame, name: str) -> Self:
        widths = _widths(_lists(items, name))
        if len(widths) > 1:
            raise UserError(
                f"vectors of items column '{name}' have different lengths: {widths[:5]}",
                "give every item a vector of one length, or null",
            )
        return cls(name, widths[0] if widths else 1)

    def encode(self, items: pl.DataFrame) -> NDArray[np.float32]:
        values = _lists(items, self.column)
        if other := [w for w in _widths(values) if w != self.size]:
            raise UserError(
                f"vectors of items column '{self.column}' have {other[0]} numbers, "
                f"those that the encoder was fitted on {self.size}",
                "fit anew: pinloom step features --param encoder=refit; then train and promote on it",
            )
        rows = values.fill_null(pl.Series([[0.0] * self.size])).list.to_array(self.size).to_numpy()
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-6))


KINDS: dict[str, Callable[..., Block]] = {c.__name__: c for c in (OneHot, TfIdf, Scaled, Given)}


def fit_blocks(items: pl.DataFrame, spec: FeatureSpec) -> Iterator[Block]:
    """The blocks of all that is declared, in the order of their columns."""
    yield from (OneHot.fit(items, name) for name in spec.categorical)
    yield from (block for name in spec.text if (block := TfIdf.fit(items, name)))
    if spec.numeric:
        yield Scaled.fit(items, spec.numeric)
    yield from (Given.fit(items, name) for name in spec.vectors)


def to_plain(block: Block) -> dict[str, Any]:
    return {"kind": type(block).__name__, **asdict(block)}  # type: ignore[call-overload]


def from_plain(said: dict[str, Any]) -> Block:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items() if k != "kind"}
    return KINDS[said["kind"]](**values)


def _texts(items: pl.DataFrame, name: str) -> pl.Series:
    return column(items, name).cast(pl.String).fill_null("")


def _signed_log(values: pl.Series) -> pl.Series:
    raw = values.cast(pl.Float64).fill_nan(None)
    return raw.sign() * raw.abs().log1p()


def _lists(items: pl.DataFrame, name: str) -> pl.Series:
    return column(items, name).cast(pl.List(pl.Float32))


def _widths(values: pl.Series) -> list[int]:
    return sorted(values.drop_nulls().list.len().unique().to_list())
