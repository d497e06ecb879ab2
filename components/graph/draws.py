"""Random numbers as a function of (seed, item, walk, draw): the same on any thread, machine or library.

A draw is 64 bits. Its high half picks a slot or decides a restart, its low half decides between slot and alias, all in
integers, so that numpy, numba and torch agree to the bit.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15
M1, M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
U64 = NDArray[np.uint64]

_GOLDEN, _M1, _M2 = np.uint64(GOLDEN), np.uint64(M1), np.uint64(M2)
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


def key_of(seed: int) -> int:
    """The seed spread over 64 bits."""
    return _mix_int((seed + 1) * GOLDEN % 2**64)


def mixed(*seeds: int) -> int:
    """One seed of several: another one, or another order, gives other numbers. 64 bits."""
    key = 0
    for seed in seeds:
        key = key_of(key + seed)
    return key


def share(probability: float) -> int:
    """The number of 2³² high halves that stand for `probability`."""
    return round(probability * 2**32)


def _mix_int(x: int) -> int:
    x = (x ^ (x >> 30)) * M1 % 2**64
    x = (x ^ (x >> 27)) * M2 % 2**64
    return x ^ (x >> 31)


# -- numpy -----------------------------------------------------------------------------------------------


def mix(x: U64) -> U64:
    """splitmix64's finaliser, a bijection of 64 bits."""
    x = (x ^ (x >> _30)) * _M1
    x = (x ^ (x >> _27)) * _M2
    return x ^ (x >> _31)


def streams(key: int, item: int, walks: NDArray[np.int64]) -> U64:
    """One stream per walk of an item. int64 [W] → uint64 [W]."""
    return mix(np.uint64(key) + ((np.uint64(item) << _32) | walks.astype(np.uint64)))


def draw(stream: U64, k: int) -> U64:
    """The k-th draw of each stream."""
    return mix(stream + np.uint64((k + 1) * GOLDEN % 2**64))


# -- numba -----------------------------------------------------------------------------------------------


@njit
def mix_one(x):  # type: ignore[no-untyped-def]
    x = (x ^ (x >> _30)) * _M1
    x = (x ^ (x >> _27)) * _M2
    return x ^ (x >> _31)


@njit
def stream_one(key, item, walk):  # type: ignore[no-untyped-def]
    return mix_one(key + ((np.uint64(item) << _32) | np.uint64(walk)))


@njit
def draw_one(stream, k):  # type: ignore[no-untyped-def]
    return mix_one(stream + np.uint64(k + 1) * _GOLDEN)


@njit
def slot_one(r, n):  # type: ignore[no-untyped-def]
    """A slot in 0 … n − 1 from the high half of `r`."""
    return np.int64(((r >> _32) * np.uint64(n)) >> _32)
