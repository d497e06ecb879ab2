"""The online store through Feast: whole rows of a user's views, read and replaced; one writer per user."""

from __future__ import annotations

import fcntl
import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from datetime import datetime
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any

import feast
import numpy as np
import xxhash
import yaml
from feast import FeatureStore, RepoConfig
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key, serialize_entity_key_prefix
from feast.infra.online_stores.helpers import compute_table_id
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Int32List, Int64List, Value

import feature_repo
from pinloom.settings import OnlineSettings, Settings

Row = dict[str, Any]
BATCH = 500
"""Users written, looked up or listed at once."""

LOCKS = 256
"""Lock files of a SQLite store: users share them by hash."""

LOCK_SECONDS = 30.0
"""A Redis lock whose holder died is free again after this."""

_MAKE = {
    feast.types.Array(feast.types.Int64): lambda v: Value(int64_list_val=Int64List(val=v)),
    feast.types.Array(feast.types.Int32): lambda v: Value(int32_list_val=Int32List(val=v)),
    feast.types.Array(feast.types.Float32): lambda v: Value(float_list_val=FloatList(val=v)),
    feast.types.Int64: lambda v: Value(int64_val=v),
    feast.types.Float32: lambda v: Value(float_val=v),
}


def project_name(dataset: str) -> str:
    """Feast's projects are words of letters, digits and underscores."""
    return re.sub(r"\W", "_", dataset)


def online_folder(settings: Settings) -> Path:
    return settings.home.resolve() / "online"


def repo_config(settings: Settings, project: str, registry: Path) -> RepoConfig:
    """`feature_repo/feature_store.yaml` filled from settings."""
    if settings.online.store == "redis":
        # Feast skips writes that are not newer than what is stored; a snapshot that is rebuilt must replace.
        online = {"type": "redis", "connection_string": settings.online.redis_url, "skip_dedup": True}
    else:
        online = {"type": "sqlite", "path": str(online_folder(settings) / f"{project}.db")}
    text = Template((Path(feature_repo.__file__).parent / "feature_store.yaml").read_text())
    filled = text.substitute(project=project, registry=registry, online_store=json.dumps(online))
    return RepoConfig(**yaml.safe_load(filled))


def apply(objects: list[Any], project: str, registry: Path, scratch: Path) -> None:
    """Write Feast's registry of `objects` to `registry`, without touching any online store but one in `scratch`."""
    config = repo_config(Settings.model_construct(home=scratch, online=OnlineSettings()), project, registry)
    FeatureStore(config=config).apply(objects)


class OnlineStore:
    """Rows of user views by user id. Safe for threads; several processes may each have one."""

    def __init__(self, settings: Settings, project: str, registry: Path) -> None:
        self.config = repo_config(settings, project, registry)
        self.feast = FeatureStore(config=self.config)
        self._folder = online_folder(settings)
        self._is_sqlite = settings.online.store == "sqlite"
        if self._is_sqlite:
            self._folder.mkdir(parents=True, exist_ok=True)
        # Feast's SQLite store has one connection, which cannot be in two transactions at once.
        self._one_at_a_time: Any = threading.RLock() if self._is_sqlite else nullcontext()
        self._views = {view.name: view for view in self.feast.list_feature_views()}
        self._types = {name: {f.name: f.dtype for f in view.features} for name, view in self._views.items()}

    def create(self) -> None:
        """Make the tables of the online views, where there are none."""
        views, entities = [v for v in self._views.values() if v.online], self.feast.list_entities()
        self.feast.provider.update_infra(self.config.project, [], views, [], entities, partial=True)
        if self._is_sqlite:
            # Readers are not kept waiting while a snapshot is written.
            with sqlite3.connect(self.config.online_store.path) as db:
                db.execute("PRAGMA journal_mode=WAL")

    def read(self, view: str, user_ids: Sequence[str], features: Sequence[str]) -> list[Row | None]:
        """Features of each user: arrays as Python sequences, scalars as they are; None where there is no row."""
        # Feast appends to the list of names that it is given: always a new one.
        with self._one_at_a_time:
            found = self.feast.provider.online_read(
                self.config, self._views[view], [_key(u) for u in user_ids], list(features)
            )
        return [_row(values) for _, values in found]

    def write(self, view: str, rows: Mapping[str, Row], moment: datetime) -> None:
        """Replace the rows of some users."""
        types = self._types[view]
        batch = [
            (_key(user), {name: _MAKE[types[name]](value) for name, value in row.items()}, moment, None)
            for user, row in rows.items()
        ]
        with self._one_at_a_time:
            self.feast.provider.online_write_batch(self.config, self._views[view], batch, None)

    def users(self, view: str) -> Iterator[list[str]]:
        """Ids of the users who have a row in a view, `BATCH` at a time."""
        feature = next(iter(self._types[view]))
        found = self._sqlite_keys(view, feature) if self._is_sqlite else self._redis_keys()
        while keys := list(islice(found, BATCH)):
            ids = [user for user in map(_user_of, keys) if user is not None]
            rows = [] if self._is_sqlite else self.read(view, ids, [feature])
            yield ids if self._is_sqlite else [u for u, row in zip(ids, rows, strict=True) if row is not None]

    def remove(self, view: str, user_ids: Sequence[str]) -> None:
        """Remove the rows of some users from a view."""
        keys = [serialize_entity_key(_key(u), self._version) for u in user_ids]
        store = self.feast.provider.online_store
        if self._is_sqlite:
            with self._one_at_a_time, store._get_conn(self.config) as db:
                db.executemany(f'DELETE FROM "{self._table(view)}" WHERE entity_key = ?', [(k,) for k in keys])
            return
        _, fields = store._generate_hset_keys_for_features(self._views[view])
        with store._get_client(self.config.online_store).pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hdel(key + self._suffix, *fields)
            pipe.execute()

    def _sqlite_keys(self, view: str, feature: str) -> Iterator[bytes]:
        # A connection of its own: it reads on while others write.
        with closing(sqlite3.connect(self.config.online_store.path)) as db:
            asked = f'SELECT entity_key FROM "{self._table(view)}" WHERE feature_name = ?'
            yield from (key for (key,) in db.execute(asked, (feature,)))

    def _redis_keys(self) -> Iterator[bytes]:
        client = self.feast.provider.online_store._get_client(self.config.online_store)
        pattern = serialize_entity_key_prefix(["user_id"], self._version) + b"*" + self._suffix
        yield from (key.removesuffix(self._suffix) for key in client.scan_iter(pattern, count=BATCH))

    def _table(self, view: str) -> str:
        versioned = self.config.registry.enable_online_feature_view_versioning
        return str(compute_table_id(self.config.project, self._views[view], versioned))

    @property
    def _suffix(self) -> bytes:
        """What ends every Redis key of this project."""
        return self.config.project.encode()

    @property
    def _version(self) -> int:
        return int(self.config.entity_key_serialization_version)

    @contextmanager
    def lock(self, user_id: str) -> Iterator[None]:
        """One writer per user, across threads and processes (and, with Redis, machines).

        Raises:
            TimeoutError: the lock could not be had, or was lost to somebody else, before the block ended.
        """
        if self._is_sqlite:
            with _file_lock(self._folder / "locks" / f"{xxhash.xxh64_intdigest(user_id.encode()) % LOCKS:03d}"):
                yield
        else:
            with self._redis_lock(user_id):
                yield

    @contextmanager
    def _redis_lock(self, user_id: str) -> Iterator[None]:
        from redis.exceptions import LockError

        client = self.feast.provider.online_store._get_client(self.config.online_store)
        lock = client.lock(f"{self.config.project}:writer:{user_id}", timeout=LOCK_SECONDS, sleep=0.005)
        try:
            with lock:
                yield
        except LockError as e:
            raise TimeoutError(f"the writer's lock of user '{user_id}' was lost") from e


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _key(user_id: str) -> EntityKey:
    return EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user_id)])


def _user_of(key: bytes) -> str | None:
    """The user of a serialised entity key; None for a key of a project whose name ends like this one's."""
    try:
        return str(deserialize_entity_key(key).entity_values[0].string_val)
    except ValueError:
        return None


def _row(values: dict[str, Value] | None) -> Row | None:
    """Redis keeps all views of a user together and answers for each with empty values when there is any."""
    plain = {name: _plain(value) for name, value in (values or {}).items()}
    return plain if any(value is not None for value in plain.values()) else None


def _plain(value: Value) -> Any:
    kind = value.WhichOneof("val")
    if kind is None:
        return None
    inner = getattr(value, kind)
    return np.array(inner.val) if kind.endswith("_list_val") else inner
