"""Hashes are part of the stored formats: their values must never change."""

import numpy as np
import polars as pl

from components.history.keys import hashes, key, keys, mix
from components.history.schema import id_hash


def test_values_are_pinned():
    assert key("event-1") == 7855612383810492925
    assert id_hash("apple") == 1502465785
    assert mix(np.array([1, 2]), seed=3).tolist() == [8196980753821780235, 14119491246550939236]


def test_columns_hash_like_single_values():
    texts = pl.Series(["a", None, "b", "a"])
    assert keys(texts).tolist() == [key("a"), key(""), key("b"), key("a")]
    assert hashes(texts).tolist() == [id_hash("a"), 0, id_hash("b"), id_hash("a")]


def test_mix_spreads_neighbours():
    order = np.argsort(mix(np.arange(10_000)))
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
