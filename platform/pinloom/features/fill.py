"""Filling the online store from the Parquet files of a features manifest, a bucket at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import datetime

import polars as pl

from feature_repo.definitions import HISTORY, HISTORY_FEATURES, SNAPSHOT, USER_FEATURES, USER_STATS
from pinloom.features.store import OnlineStore

log = logging.getLogger("pinloom")

BATCH = 500
"""Users written, or looked up, at once."""


def fill(store: OnlineStore, view: str, files: Iterable[str]) -> int:
    """Replace the rows of all users in `files`. Returns how many.

    The same rows as `FeatureStore.materialize` writes, which reads a whole view into memory first.
    """
    features = [*FEATURES[view]]
    written = 0
    for path in files:
        for part in pl.read_parquet(path).iter_slices(BATCH):
            if part.height:
                moment: datetime = part["event_timestamp"][0]
                store.write(view, dict(_rows(part, features)), moment)
                written += part.height
    return written


FEATURES = {HISTORY: (*HISTORY_FEATURES, SNAPSHOT), USER_STATS: tuple(USER_FEATURES)}


def _rows(frame: pl.DataFrame, features: list[str]) -> Iterator[tuple[str, dict[str, object]]]:
    columns = [frame[name].to_list() for name in features]
    for user_id, *values in zip(frame["user_id"].to_list(), *columns, strict=True):
        yield user_id, dict(zip(features, values, strict=True))


def is_filled(store: OnlineStore, files: Iterable[str]) -> bool:
    """Whether the store has the history of every user of `files` from this very snapshot."""
    for path in files:
        wanted = pl.read_parquet(path, columns=["user_id", SNAPSHOT])
        for part in wanted.iter_slices(BATCH):
            rows = store.read(HISTORY, part["user_id"].to_list(), [SNAPSHOT])
            found = [None if row is None else row.get(SNAPSHOT) for row in rows]
            if found != part[SNAPSHOT].to_list():
                return False
    return True
