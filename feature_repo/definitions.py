"""Entities, views and services over the Parquet files of one `features` manifest.

A user's past is two views. A push replaces a row, and on SQLite a later materialization of older rows erases it: so the
materialized snapshot (`user_history`) and the realtime tail (`user_history_tail`) are apart, and readers merge them
by event. The batch source of the tail has no rows: no materialization, of whichever views, can overwrite it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, FeastType, Float32, Int32, Int64

HISTORY = "user_history"
TAIL = "user_history_tail"
USER_STATS = "user_stats"
TAIL_PUSH = "user_actions"

HISTORY_FEATURES: dict[str, FeastType] = {
    "item_key": Array(Int64),
    "action": Array(Int32),
    "timestamp": Array(Int64),
    "surface": Array(Int32),
    "event": Array(Int64),
}
"""Parallel arrays, newest first. `item_key` and `event` are 63-bit hashes of the ids, `timestamp` is µs since epoch."""

SNAPSHOT = "snapshot"
"""Which features manifest a materialized history is from: how an emptied or outdated store is told."""

USER_FEATURES: dict[str, FeastType] = {
    "actions": Int64,
    "log_actions": Float32,
    "log_actions_7d": Float32,
    "log_actions_28d": Float32,
    "log_days_since_last": Float32,
}

ITEM_FEATURES: dict[str, FeastType] = {
    "log_positives_7d": Float32,
    "log_positives_28d": Float32,
    "log_positives": Float32,
    "log_users": Float32,
    "log_age_days": Float32,
}


@dataclass(frozen=True)
class Sources:
    """Folders of Parquet files of the `features` manifest; `tail` has the columns of histories and no rows."""

    histories: str
    user_stats: str
    item_features: str
    tail: str


@dataclass(frozen=True)
class Definitions:
    entities: tuple[Entity, ...]
    views: tuple[FeatureView, ...]
    services: tuple[FeatureService, ...]

    @property
    def objects(self) -> list[Entity | FeatureView | FeatureService]:
        """Everything that `FeatureStore.apply` takes."""
        return [*self.entities, *self.views, *self.services]


def define(sources: Sources) -> Definitions:
    """All definitions over the given files."""
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
    history = _view(HISTORY, user, {**HISTORY_FEATURES, SNAPSHOT: Int64}, _file(HISTORY, sources.histories))
    pushed = PushSource(name=TAIL_PUSH, batch_source=_file(TAIL, sources.tail))
    tail = _view(TAIL, user, HISTORY_FEATURES, pushed)
    # As of the snapshot; as of a request, serving makes these numbers from the history that it reads, tail included.
    user_stats = _view(USER_STATS, user, USER_FEATURES, _file(USER_STATS, sources.user_stats), online=False)
    # Candidates are read from the memory-mapped snapshot, thousands at once: the online store holds histories only.
    items = _file("items", sources.item_features)
    item_stats = _view("item_stats", item, ITEM_FEATURES, items, online=False)
    item_content = _view("item_content", item, {"vector": Array(Float32)}, items, online=False)
    return Definitions(
        entities=(user, item),
        views=(history, tail, user_stats, item_stats, item_content),
        services=(
            FeatureService(name="transact_ranking_v2", features=[history, tail, user_stats, item_stats, item_content]),
            FeatureService(name="sasrec_sequence_v1", features=[history, tail]),
        ),
    )


def _file(name: str, path: str) -> FileSource:
    return FileSource(name=f"{name}_files", path=path, timestamp_field="event_timestamp")


def _view(
    name: str,
    entity: Entity,
    features: dict[str, FeastType],
    source: FileSource | PushSource,
    online: bool = True,
) -> FeatureView:
    schema = [Field(name=n, dtype=t) for n, t in features.items()]
    return FeatureView(name=name, entities=[entity], schema=schema, source=source, online=online, ttl=timedelta(0))
