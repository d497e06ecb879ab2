"""Records that do not fit in memory: appended to one file per part, read back a part at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PART = 2_000_000
"""Records of a part that are sorted in memory at once."""


class Spill:
    """Parts of an external bucket sort.

    Args:
        folder: for the files; made here.
        dtype: of the records (structured).
        parts: number of files.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], parts: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.dtype, self.parts = folder, dtype, parts

    def append(self, part: NDArray[np.integer], columns: dict[str, NDArray[Any]]) -> None:
        """Add records, given as columns [n], to their parts, [n]."""
        order = np.argsort(part, kind="stable")
        records = np.empty(len(order), self.dtype)
        for name, values in columns.items():
            records[name] = values[order]
        ends = np.cumsum(np.bincount(part, minlength=self.parts))
        for number, piece in enumerate(np.split(records, ends[:-1])):
            if len(piece):
                with self._path(number).open("ab") as file:
                    file.write(piece.data)

    def take(self, part: int) -> NDArray[Any]:
        """The records of a part, in the order of their arrival; its file goes."""
        path = self._path(part)
        if not path.exists():
            return np.empty(0, self.dtype)
        records = np.fromfile(path, self.dtype)
        path.unlink()
        return records

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:05d}"


def parts_for(records: int) -> int:
    """Parts so that each holds about `PART` records."""
    return max(1, -(-records // PART))
