"""The item table: everything about items that ranking reads, as arrays over rows, memory-mapped and shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.history.keys import keys

ARRAYS = ("keys", "vectors", "categorical", "hash", "numeric")


@dataclass(frozen=True)
class ItemTable:
    """Row 0 is the unknown item; the other rows follow `item_id` in byte order.

    Attributes:
        keys: int64 [N], `keys.key` of the item id; -1 in row 0.
        vectors: fp16 [N, 32], L2-normalised content vectors (zero: nothing is known).
        categorical: int32 [N, C], `id_hash` of the values, 0 = absent.
        hash: int32 [N], `id_hash` of the item id; 0 without any positive action before the snapshot.
        numeric: float32 [N, F], statistics as of the snapshot's midnight.
        labels: row, item_id, created_at, category, title.
    """

    keys: NDArray[np.int64]
    vectors: NDArray[np.float16]
    categorical: NDArray[np.int32]
    hash: NDArray[np.int32]
    numeric: NDArray[np.float32]
    labels: pl.DataFrame

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def ids(self) -> pl.Series:
        """Item ids by row; '' in row 0."""
        return self.labels["item_id"]

    @property
    def category(self) -> pl.Series:
        return self.labels["category"]

    @property
    def title(self) -> pl.Series:
        return self.labels["title"]

    @property
    def created_at(self) -> pl.Series:
        return self.labels["created_at"]

    @cached_property
    def created(self) -> NDArray[np.int64]:
        """First moment of each item, µs since epoch; -1 = unknown. [N]."""
        return moments(self.created_at)

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        order = np.argsort(self.keys, kind="stable").astype(np.int32)
        return self.keys[order], order

    def rows_of_keys(self, wanted: NDArray[np.int64]) -> NDArray[np.int32]:
        """Rows of item keys. int64 [n] → int32 [n], 0 where the item is unknown."""
        ordered, order = self._sorted
        at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        return np.where(ordered[at] == wanted, order[at], np.int32(0)).astype(np.int32)

    def rows(self, item_ids: Sequence[str] | pl.Series) -> NDArray[np.int32]:
        """Rows of item ids. Returns int32 [n], 0 where the item is unknown."""
        return self.rows_of_keys(keys(item_ids))

    @classmethod
    def load(cls, source: str | Path | Mapping[str, str | Path], *, mmap: bool = True) -> ItemTable:
        """Open a table.

        Args:
            source: its folder, or local paths by file name (`vectors.npy`, …).
            mmap: map the arrays instead of reading them: replicas on a machine share the pages.
        """
        if isinstance(source, Mapping):
            paths = {name: Path(path) for name, path in source.items()}
        else:
            paths = {p.name: p for p in Path(source).iterdir()}
        arrays = {a: np.load(paths[f"{a}.npy"], mmap_mode="r" if mmap else None) for a in ARRAYS}
        labels = pl.read_parquet(paths["ids.parquet"]).join(
            pl.read_parquet(paths["category.parquet"]), on="row", maintain_order="left"
        )
        return cls(**arrays, labels=labels)

    def save(self, folder: Path) -> None:
        """Write the table's files into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        self.labels.select("row", "item_id", "created_at").write_parquet(folder / "ids.parquet")
        self.labels.select("row", "category", "title").write_parquet(folder / "category.parquet")


def moments(created_at: pl.Series) -> NDArray[np.int64]:
    """First moments, µs since epoch; -1 = unknown. [N]."""
    return created_at.dt.epoch("us").fill_null(-1).to_numpy()
