"""Named arrays as files of a folder, memory-mapped: processes of a machine share the pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from components.errors import UserError


@dataclass(frozen=True)
class ArrayFiles:
    """Base of dataclasses whose fields are arrays, each in `<field>.npy`."""

    @classmethod
    def load(cls, source: str | Path | Mapping[str, str | Path], *, mmap: bool = True) -> Self:
        """Open the arrays.

        Args:
            source: their folder, or local paths by file name (`item_offsets.npy`, …).
            mmap: map the arrays instead of reading them.

        Raises:
            UserError: a file is missing.
        """
        if isinstance(source, Mapping):
            paths = {name: Path(path) for name, path in source.items()}
        else:
            paths = {p.name: p for p in Path(source).iterdir()}
        missing = [f"{f.name}.npy" for f in fields(cls) if f.name + ".npy" not in paths]
        if missing:
            raise UserError(f"{cls.__name__} has no file {', '.join(missing)}", "run the step that publishes it again")
        return cls(**{f.name: _open(paths[f"{f.name}.npy"], mmap) for f in fields(cls)})

    def save(self, folder: Path) -> None:
        """Write the arrays into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for f in fields(self):
            np.save(folder / f"{f.name}.npy", getattr(self, f.name))


def _open(path: Path, mmap: bool) -> Any:
    # An array without elements cannot be mapped.
    header_only = path.stat().st_size <= 128
    return np.load(path, mmap_mode="r" if mmap and not header_only else None)


class GrowingArray:
    """A one-dimensional `.npy` of unknown length, written piece by piece.

    numpy pads the header so that it can be written again when the array has grown.
    """

    def __init__(self, path: Path, dtype: Any) -> None:
        self.dtype, self.length = np.dtype(dtype), 0
        self._file = path.open("wb")
        self._header()

    def append(self, values: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(values, self.dtype).data)
        self.length += len(values)

    def close(self) -> None:
        end = self._file.tell()
        self._file.seek(0)
        self._header()
        assert end == self._file.tell() + self.length * self.dtype.itemsize, "the header has grown"
        self._file.close()

    def _header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
