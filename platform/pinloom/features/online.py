"""A user's past as serving sees it: the materialized snapshot and the realtime tail, read together; the tail written.

The store holds item keys (63-bit hashes of the ids), not rows: rows change from snapshot to snapshot, keys do not, and
16,000 of them become rows of the loaded item table in about a millisecond.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from components.history.build import History
from components.history.items import ItemTable
from components.history.keys import hashes, keys
from components.history.merge import COLUMNS, Columns, empty, merge, without
from components.history.schema import FeatureSchema
from feature_repo.definitions import HISTORY, TAIL
from pinloom.features.store import OnlineStore
from pinloom.lake import Lake, Manifest
from pinloom.settings import Settings


class OnlineFeatures:
    """What a serving replica reads and writes. Safe for threads; each process opens its own.

    Attributes:
        items: the item table of the materialized snapshot, memory-mapped.
        schema: of the features that the snapshot was made from.
    """

    def __init__(self, settings: Settings, online: Manifest) -> None:
        lake = Lake(online.uri.rsplit("/manifests/", 1)[0])
        snapshot = {uri.rsplit("/", 1)[-1]: lake.local_path(uri) for uri in online.output("snapshot").uris}
        self.items = ItemTable.load(snapshot)
        self.schema = FeatureSchema.load(lake.local_path(online.file("schema", "schema.json")))
        registry = lake.local_path(online.file("registry", "registry.db"))
        self.store = OnlineStore(settings, str(online.metrics["project"]), registry)

    def history(self, user_id: str) -> History:
        """Everything known of a user, newest first, at most `max_history`; empty for an unknown user."""
        merged = self._merge(self._columns(HISTORY, user_id), self._columns(TAIL, user_id))
        return History(
            item=self.items.rows_of_keys(merged["item_key"]),
            action=merged["action"].astype(np.int16),
            timestamp=merged["timestamp"],
            surface=merged["surface"],
            event=merged["event"],
        )

    def append(self, actions: pl.DataFrame) -> int:
        """Add actions to their users' tails; an event that is known already changes nothing.

        The tail of each user is read, merged and replaced under the user's lock, and loses what the snapshot now has.

        Args:
            actions: rows of the contract's `actions` whose words are in the vocabulary; impressions are left out.

        Returns:
            Number of events that were new to a history.
        """
        columns = self._from_actions(actions)
        users = columns.pop("user_id")
        added = 0
        for user_id in dict.fromkeys(users.tolist()):
            own = users == user_id
            added += self._append_user(str(user_id), {name: values[own] for name, values in columns.items()})
        return added

    def _append_user(self, user_id: str, fresh: Columns) -> int:
        with self.store.lock(user_id):
            snapshot = self._columns(HISTORY, user_id)
            tail = without(self._columns(TAIL, user_id), snapshot["event"])
            merged = self._merge(tail, without(fresh, snapshot["event"]))
            added = len(merged["event"]) - len(tail["event"])
            if added:
                row = {name: values.tolist() for name, values in merged.items()}
                self.store.write(TAIL, {user_id: row}, datetime.now(UTC))
            return added

    def _merge(self, older: Columns, newer: Columns) -> Columns:
        return merge(older, newer, ordered_ties=self.schema.ordered_ties, limit=self.schema.max_history)

    def _columns(self, view: str, user_id: str) -> Columns:
        row = self.store.read(view, [user_id], list(COLUMNS))[0]
        if row is None:
            return empty()
        return {name: np.asarray(row[name], dtype) for name, dtype in COLUMNS.items()}

    def _from_actions(self, actions: pl.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
        """Columns of a history with `user_id`, each user's latest row first, one row per event."""
        index = {name: i for i, name in enumerate(self.schema.actions, start=1)}
        kept = (
            actions.with_columns(action=pl.col("action").replace_strict(index, return_dtype=pl.Int32))
            .filter(~pl.col("action").is_in(self.schema.exposures))
            .unique("event_id", keep="first", maintain_order=True)
            .reverse()
        )
        return {
            "user_id": kept["user_id"].to_numpy(),
            "item_key": keys(kept["item_id"]),
            "action": kept["action"].to_numpy(),
            "timestamp": kept["timestamp"].dt.epoch("us").to_numpy(),
            "surface": hashes(kept["surface"]),
            "event": keys(kept["event_id"]),
        }
