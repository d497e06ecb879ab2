"""Stable integers for strings: the same in every process, version and machine."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from components.history.schema import id_hash

U64 = NDArray[np.uint64]


def key(text: str) -> int:
    """63-bit identity of an event, item or request: xxh64 without its lowest bit, ≥ 0."""
    return xxhash.xxh64_intdigest(text.encode()) >> 1


def keys(texts: pl.Series | Iterable[str]) -> NDArray[np.int64]:
    """`key` of each string. Returns int64 [n]; nulls are the empty string."""
    listed = texts.fill_null("").to_list() if isinstance(texts, pl.Series) else list(texts)
    return np.fromiter((xxhash.xxh64_intdigest(t.encode()) >> 1 for t in listed), np.int64, len(listed))


def hashes(texts: pl.Series) -> NDArray[np.int32]:
    """`id_hash` of each string, computed once per distinct value. Returns int32 [n], 0 for null."""
    distinct = texts.unique()
    table = pl.DataFrame({"t": distinct, "h": [id_hash(t) for t in distinct]}, schema={"t": pl.String, "h": pl.Int32})
    joined = pl.DataFrame({"t": texts.cast(pl.String)}).join(
        table, on="t", how="left", maintain_order="left", nulls_equal=True
    )
    return joined["h"].to_numpy()


def mix(values: NDArray[np.int64], seed: int = 0) -> U64:
    """splitmix64's finaliser: a pseudo-random order that is a function of the values alone. [n] → uint64 [n]."""
    x = values.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
