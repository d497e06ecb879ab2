"""Embedding tables as files that replicas map and share, rows quantised to 4 or 8 bits (PinFM; FBGEMM's way).

A row of w values is w codes between its smallest and largest value, then scale and bias as fp16: 32 values are
160 bits in int4 and 288 in int8. Gathering reads packed rows and writes float32, in one pass.

Shapes: N rows, w values a row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from components.errors import UserError

ROWS, DESCRIPTION = "rows.npy", "table.json"
FORMAT = 1
BITS = (4, 8, 32)
PER_THREAD = 8192
"""Rows below which one more thread does not pay."""
_POWERS = (2.0 ** (np.arange(32) - 25)).astype(np.float32)
"""Of the exponent of a normal fp16: its value is (1024 + fraction) · power."""


def quantise(rows_Nw: NDArray[np.float32], bits: int) -> NDArray[np.uint8]:
    """Pack rows: uint8 [N, w · bits / 8 + 4], or [N, 4 · w] for 32 bits, which are float32 as they were.

    Byte j of an int4 row holds value j in its low half and value j + w/2 in its high half.

    Raises:
        ValueError: a row whose smallest value or range fp16 cannot hold, or an odd width for int4.
    """
    rows = np.ascontiguousarray(rows_Nw, dtype=np.float32)
    if bits == 32:
        return rows.view(np.uint8)
    half = rows.shape[1] // 2
    if bits == 4 and rows.shape[1] % 2:
        raise ValueError(f"int4 packs pairs, not rows of {rows.shape[1]} values")
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    levels = 2**bits - 1
    # Codes are chosen for the scale and bias as they are stored, so that rounding these costs nothing more.
    with np.errstate(over="ignore"):
        bias, scale = low.astype(np.float16), ((high - low) / levels).astype(np.float16)
    if not (np.isfinite(bias).all() and np.isfinite(scale).all()):
        raise ValueError("a row has values, or a range of values, beyond fp16")
    step = np.where(scale > 0, scale, 1).astype(np.float32)
    codes = np.clip(np.rint((rows - bias.astype(np.float32)) / step), 0, levels).astype(np.uint8)
    if bits == 4:
        codes = codes[:, :half] | codes[:, half:] << 4
    return np.concatenate([codes, scale.view(np.uint8), bias.view(np.uint8)], axis=1)


class QuantisedTable:
    """Packed rows, in memory or mapped from a file.

    Args:
        packed_NB: of `quantise`, uint8.
        bits: 4, 8, or 32 (float32 rows: the twin).
    """

    def __init__(self, packed_NB: NDArray[np.uint8], bits: int) -> None:
        if bits not in BITS:
            raise ValueError(f"rows have 4, 8 or 32 bits a value, not {bits}")
        self.packed, self.bits = packed_NB, bits
        self.width = (packed_NB.shape[1] - (4 if bits < 32 else 0)) * 8 // bits

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def nbytes(self) -> int:
        return int(self.packed.nbytes)

    @classmethod
    def write(cls, folder: str | Path, blocks: Iterable[NDArray[np.float32]], *, rows: int, bits: int) -> None:
        """Quantise float32 blocks [n, w], `rows` in all, into files in `folder`; one block is in memory at a time."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        file, done = None, 0
        for block in blocks:
            packed = quantise(block, bits)
            if file is None:
                shape = (rows, packed.shape[1])
                file = np.lib.format.open_memmap(folder / ROWS, mode="w+", dtype=np.uint8, shape=shape)
            if done + len(packed) > rows:
                raise ValueError(f"more than the {rows} rows that were announced")
            file[done : done + len(packed)] = packed
            done += len(packed)
        if file is None or done < rows:
            raise ValueError(f"{done} rows came, {rows} were announced")
        file.flush()
        (folder / DESCRIPTION).write_text(json.dumps({"format": FORMAT, "bits": bits}))

    @classmethod
    def open(cls, folder: str | Path) -> QuantisedTable:
        """Map a table: pages are read when rows are first asked for, and shared by all processes that map it.

        Raises:
            UserError: no table there, or one of another format.
        """
        path = Path(folder) / DESCRIPTION
        said = json.loads(path.read_text()) if path.exists() else None
        if said is None or said.get("format") != FORMAT:
            found = "no embedding table" if said is None else f"an embedding table of format {said.get('format')}"
            raise UserError(f"{folder} holds {found}", f"write one of format {FORMAT} with QuantisedTable.write")
        return cls(np.load(Path(folder) / ROWS, mmap_mode="r"), said["bits"])

    def gather(self, rows: Tensor) -> Tensor:
        """int64 [...] → float32 [..., w] on the CPU; negative rows are the zero vector.

        Raises:
            IndexError: a row beyond the table.
        """
        wanted = rows.detach().cpu().contiguous().view(-1).numpy()
        if len(wanted) and wanted.max() >= len(self):
            raise IndexError(f"row {wanted.max()} of a table of {len(self)}")
        out = np.empty((len(wanted), self.width), np.float32)
        threads = min(torch.get_num_threads(), -(-len(wanted) // PER_THREAD))
        bounds = np.linspace(0, len(wanted), max(threads, 1) + 1).astype(int)
        parts = [(wanted[a:b], out[a:b]) for a, b in pairwise(bounds)]
        if threads <= 1:
            self._fill(*parts[0])
        else:
            list(_pool().map(lambda part: self._fill(*part), parts))
        return torch.from_numpy(out).view(*rows.shape, self.width)

    def _fill(self, rows_n: NDArray[np.int64], out_nw: NDArray[np.float32]) -> None:
        if self.bits == 32:
            _copy(self.packed.view(np.float32), rows_n, out_nw)
        elif self.bits == 8:
            _bytes(self.packed, rows_n, out_nw, _POWERS)
        else:
            _halves(self.packed, rows_n, out_nw, _POWERS)


@cache
def _pool() -> ThreadPoolExecutor:
    """Of threads, since numba's own must not be asked from two threads at once; the kernels let go of the GIL."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gather")


@njit(cache=True, nogil=True, inline="always")
def _half(low, high, powers):  # type: ignore[no-untyped-def]
    """Two bytes as the fp16 that they are, in float32."""
    exponent, fraction = (high >> 2) & 31, ((high & 3) << 8) | low
    value = np.float32(1024 + fraction) * powers[exponent] if exponent > 0 else np.float32(fraction) * powers[1]
    return -value if high & 128 else value


@njit(cache=True, nogil=True)
def _bytes(packed, rows, out, powers):  # type: ignore[no-untyped-def]
    width = out.shape[1]
    for i in range(len(rows)):
        if rows[i] < 0:
            out[i] = 0.0
            continue
        row = packed[rows[i]]
        scale = _half(row[width], row[width + 1], powers)
        bias = _half(row[width + 2], row[width + 3], powers)
        for j in range(width):
            out[i, j] = np.float32(row[j]) * scale + bias


@njit(cache=True, nogil=True)
def _halves(packed, rows, out, powers):  # type: ignore[no-untyped-def]
    half = out.shape[1] // 2
    for i in range(len(rows)):
        if rows[i] < 0:
            out[i] = 0.0
            continue
        row = packed[rows[i]]
        scale = _half(row[half], row[half + 1], powers)
        bias = _half(row[half + 2], row[half + 3], powers)
        for j in range(half):
            out[i, j] = np.float32(row[j] & 15) * scale + bias
        for j in range(half):
            out[i, half + j] = np.float32(row[j] >> 4) * scale + bias


@njit(cache=True, nogil=True)
def _copy(table, rows, out):  # type: ignore[no-untyped-def]
    for i in range(len(rows)):
        if rows[i] < 0:
            out[i] = 0.0
        else:
            out[i] = table[rows[i]]
