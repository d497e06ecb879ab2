"""Embedding tables as files that replicas map and share, rows quantised to 4 or 8 bits (PinFM; FBGEMM's way).

A row of w values is w codes between its smallest and largest value, then scale and bias as fp16: 32 values are
160 bits in int4 and 288 in int8. Gathering reads packed rows and writes float32, in one pass.

Shapes: N rows, w values a row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from components.errors import UserError

ROWS, DESCRIPTION = "rows.npy", "table.json"
FORMAT = 1
BITS = (4, 8, 32)
PER_THREAD = 65_536
"""Rows below which one more thread does not pay."""
AHEAD = 24
"""Rows that are asked of memory before they are needed."""
_FP16 = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


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
        out_nw = torch.empty(len(wanted), self.width)
        out = out_nw.numpy()
        threads = min(torch.get_num_threads(), -(-len(wanted) // PER_THREAD))
        bounds = np.linspace(0, len(wanted), max(threads, 1) + 1).astype(int)
        parts = [(wanted[a:b], out[a:b]) for a, b in pairwise(bounds)]
        if threads <= 1:
            self._fill(*parts[0])
        else:
            list(_pool().map(lambda part: self._fill(*part), parts))
        return out_nw.view(*rows.shape, self.width)

    def _fill(self, rows_n: NDArray[np.int64], out_nw: NDArray[np.float32]) -> None:
        if self.bits == 32:
            np.take(self.packed.view(np.float32), rows_n, axis=0, out=out_nw, mode="clip")
            out_nw[rows_n < 0] = 0.0
        else:
            _KERNELS[self.bits](self.packed, rows_n, out_nw, _FP16)


@cache
def _pool() -> ThreadPoolExecutor:
    """Of threads, since numba's own must not be asked from two threads at once; the kernels let go of the GIL."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gather")


@intrinsic
def _spread(context, codes, shift, mask, out, scale, bias):  # type: ignore[no-untyped-def]
    """Sixteen bytes at address `codes` → sixteen float32 ((byte >> shift) & mask) · scale + bias at address `out`.

    Written in LLVM's vectors: numba's loops over bytes are not vectorised, and take ten times as long.
    """

    def generate(_context, b, _signature, args):  # type: ignore[no-untyped-def]
        codes, shift, mask, out, scale, bias = args

        def vector(kind):  # type: ignore[no-untyped-def]
            return ir.VectorType(kind, 16)

        def splat(value, kind):  # type: ignore[no-untyped-def]
            one = b.insert_element(ir.Constant(vector(kind), ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            return b.shuffle_vector(one, one, ir.Constant(vector(ir.IntType(32)), [0] * 16))

        byte, real = ir.IntType(8), ir.FloatType()
        read = b.load(b.inttoptr(codes, vector(byte).as_pointer()), align=1)
        code = b.and_(b.lshr(read, splat(b.trunc(shift, byte), byte)), splat(b.trunc(mask, byte), byte))
        value = b.uitofp(b.zext(code, vector(ir.IntType(32))), vector(real))
        value = b.fadd(b.fmul(value, splat(scale, real)), splat(bias, real))
        b.store(value, b.inttoptr(out, vector(real).as_pointer()), align=4)
        return _context.get_dummy_value()

    return types.void(*[types.intp] * 4, types.float32, types.float32), generate


@intrinsic
def _prefetch(context, address):  # type: ignore[no-untyped-def]
    """Ask for the cache line at `address`; no fault wherever that is."""

    def generate(_context, b, _signature, args):  # type: ignore[no-untyped-def]
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        ask = b.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        b.call(ask, [b.inttoptr(args[0], pointer), *(ir.Constant(number, n) for n in (0, 3, 1))])
        return _context.get_dummy_value()

    return types.void(types.intp), generate


def _kernel(bits: int) -> Callable[..., None]:
    """Gathering of rows with so many bits a value, known when it is compiled."""
    mask, parts = 2**bits - 1, 8 // bits

    @njit(cache=True, nogil=True)
    def dequantise(packed, rows, out, fp16):  # type: ignore[no-untyped-def]
        width, size, base = out.shape[1], packed.shape[1], packed.ctypes.data
        count = width // parts
        for i in range(len(rows)):
            row = rows[i]
            _prefetch(base + rows[min(i + AHEAD, len(rows) - 1)] * size)
            if row < 0:
                out[i] = 0.0
                continue
            scale = fp16[packed[row, count] | packed[row, count + 1] << 8]
            bias = fp16[packed[row, count + 2] | packed[row, count + 3] << 8]
            for part in range(parts):
                codes, to = base + row * size, out.ctypes.data + 4 * (i * width + part * count)
                for j in range(0, count - 15, 16):
                    _spread(codes + j, part * bits, mask, to + 4 * j, scale, bias)
                for j in range(count - count % 16, count):
                    out[i, part * count + j] = np.float32((packed[row, j] >> (part * bits)) & mask) * scale + bias

    return dequantise


_KERNELS = {bits: _kernel(bits) for bits in (4, 8)}
