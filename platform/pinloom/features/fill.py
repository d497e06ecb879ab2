"""Bringing the online store to what the Parquet files of a features manifest say, a bucket at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import numpy as np
import polars as pl

from components.history.keys import keys
from feature_repo.definitions import HISTORY, HISTORY_FEATURES, SNAPSHOT, TAIL
from pinloom.features.store import BATCH, OnlineStore

log = logging.getLogger("pinloom")


def bring_up(store: OnlineStore, histories: Sequence[str], as_of: datetime) -> None:
    """The snapshot in `histories` into the store, and out of it who is no longer in them.

    Users vanish from a log when they are erased, sampled out or quarantined. Of the tail of such a user stays what is
    not older than `as_of`: the snapshot could not have it yet. Users who came since have a tail alone and keep it.

    Args:
        as_of: the snapshot's midnight.
    """
    store.create()
    if is_filled(store, histories):
        log.info("materialize: the online store has this snapshot")
    else:
        log.info("materialize: %d users written to the online store", fill(store, histories))
    gone = forget(store, histories)
    for user_id in gone:
        _cut_tail(store, user_id, as_of)
    if gone:
        log.info("materialize: %d users who are no longer in the log left the online store", len(gone))


def fill(store: OnlineStore, files: Iterable[str]) -> int:
    """Replace the histories of all users in `files`. Returns how many.

    The same rows as `FeatureStore.materialize` writes, which reads a whole view into memory first.
    """
    features = [*HISTORY_FEATURES, SNAPSHOT]
    written = 0
    for path in files:
        for part in pl.read_parquet(path).iter_slices(BATCH):
            if part.height:
                moment: datetime = part["event_timestamp"][0]
                store.write(HISTORY, dict(_rows(part, features)), moment)
                written += part.height
    return written


def _rows(frame: pl.DataFrame, features: list[str]) -> Iterator[tuple[str, dict[str, object]]]:
    columns = [frame[name].to_list() for name in features]
    for user_id, *values in zip(frame["user_id"].to_list(), *columns, strict=True):
        yield user_id, dict(zip(features, values, strict=True))


def forget(store: OnlineStore, files: Iterable[str]) -> list[str]:
    """Remove the histories of users who are not in `files`. Returns who they were."""
    known = [keys(pl.read_parquet(path, columns=["user_id"])["user_id"]) for path in files]
    present = np.sort(np.concatenate([[-1], *known]))
    gone: list[str] = []
    for users in store.users(HISTORY):
        wanted = keys(users)
        found = present[np.searchsorted(present, wanted, side="right") - 1] == wanted
        gone += [user for user, here in zip(users, found, strict=True) if not here]
    for first in range(0, len(gone), BATCH):
        store.remove(HISTORY, gone[first : first + BATCH])
    return gone


def _cut_tail(store: OnlineStore, user_id: str, as_of: datetime) -> None:
    with store.lock(user_id):
        row = store.read(TAIL, [user_id], [*HISTORY_FEATURES])[0]
        if row is None:
            return
        later = np.asarray(row["timestamp"]) >= as_of.timestamp() * 1e6
        if later.any():
            store.write(TAIL, {user_id: {name: np.asarray(row[name])[later].tolist() for name in row}}, as_of)
        else:
            store.remove(TAIL, [user_id])


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
