"""Small logs with many equal times, and the slow way to their features."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
from hypothesis import strategies as st

from components.contract import ACTIONS, ActionSpec, Contract, Role, Splits, Ties
from components.history.build import Example, build_example
from components.history.examples import ExampleBuilder, cross_codes
from components.history.items import ItemTable
from components.history.keys import hashes, keys
from components.history.log import UserLog, numbers, with_rows
from components.history.requests import Requests, shown
from components.history.schema import FeatureSchema
from components.history.statistics import DAY, ITEM_NUMERIC, ItemStatistics, daily_counts

ITEM_IDS = ["", "apple", "bread", "corn", "dates", "egg"]
KINDS = [None, "fruit", "grain", "grain", "fruit", None]
CREATED = [-1, 0, -1, DAY * 2, DAY * 3 + 7, DAY]
HOUR = 3_600_000_000


def contract(ties: Ties = Ties.UNORDERED, max_history: int = 1000) -> Contract:
    day = date(1970, 1, 1)
    return Contract(
        name="small",
        actions=(
            ActionSpec(name="buy", role=Role.POSITIVE),
            ActionSpec(name="hide", role=Role.NEGATIVE),
            ActionSpec(name="save", role=Role.POSITIVE),
            ActionSpec(name="seen", role=Role.IMPRESSION),
        ),
        ties=ties,
        splits=Splits(burn_in=day, validation=day.replace(day=3), test=day.replace(day=5), end=day.replace(day=9)),
        buckets=2,
        max_history=max_history,
    )


def schema(of: Contract, sequence_length: int = 4) -> FeatureSchema:
    return FeatureSchema(
        service="small_v1",
        heads=of.heads,
        actions=tuple(of.action_index),
        item_numeric=ITEM_NUMERIC,
        candidate_numeric=(*ITEM_NUMERIC, "log_user_item", "log_user_item_days", "log_user_kind"),
        user_numeric=("log_actions", "log_actions_7d", "log_actions_28d", "log_days_since_last"),
        categorical=("kind",),
        crosses=("kind",),
        sequence_length=sequence_length,
        positive=tuple(of.action_index[a] for a in of.names(Role.POSITIVE)),
        exposures=tuple(of.action_index[a] for a in of.names(Role.IMPRESSION)),
        max_history=of.max_history,
        ordered_ties=of.ties is Ties.ORDERED,
    )


def item_table(numeric: np.ndarray | None = None) -> ItemTable:
    n = len(ITEM_IDS)
    ids = pl.Series(ITEM_IDS)
    labels = pl.DataFrame(
        {
            "row": np.arange(n, dtype=np.uint32),
            "item_id": ids,
            "created_at": pl.Series([None if c < 0 else c for c in CREATED], dtype=pl.Int64).cast(
                pl.Datetime("us", "UTC")
            ),
            "category": KINDS,
            "title": ITEM_IDS,
        }
    )
    return ItemTable(
        keys=np.where(np.arange(n) == 0, -1, keys(ids)),
        vectors=np.eye(n, 32, dtype=np.float16),
        categorical=hashes(pl.Series(KINDS, dtype=pl.String))[:, None],
        hash=hashes(ids),
        numeric=np.zeros((n, len(ITEM_NUMERIC)), np.float32) if numeric is None else numeric,
        labels=labels,
    )


def frame(rows: list[dict[str, object]]) -> pl.DataFrame:
    """Rows of `actions` from dicts with `timestamp` in µs."""
    raw = pl.DataFrame(rows, schema={**ACTIONS, "timestamp": pl.Int64})
    return raw.with_columns(pl.col("timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))


HOURS = [0, 1, 25, 7 * 24, 7 * 24 + 1, 8 * 24, 28 * 24, 28 * 24 + 1, 30 * 24 + 3]
"""Few moments, so that nearly everything is tied; differences of exactly 7 and 28 days, and just more and less."""


@st.composite
def logs(draw: st.DrawFn, max_size: int = 40) -> pl.DataFrame:
    """Actions of two users on few items and few moments, with requests at most of them."""
    row = st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["ann", "ann", "bob"]),
            "item_id": st.sampled_from(["apple", "bread", "corn", "gone"]),
            "action": st.sampled_from(["buy", "hide", "save"]),
            "timestamp": st.sampled_from(HOURS).map(lambda h: h * HOUR),
            "surface": st.sampled_from([None, "shelf", "page"]),
        }
    )
    rows = draw(st.lists(row, min_size=1, max_size=max_size))
    shown = draw(st.lists(row, min_size=1, max_size=8))
    rows += [{**r, "action": "seen"} for r in shown]
    named = [{**r, "event_id": f"e{i}", "request_id": f"{r['user_id']}-{r['timestamp']}"} for i, r in enumerate(rows)]
    return frame(named)


@dataclass(frozen=True)
class Built:
    """All that the fast path makes of a log."""

    log: UserLog
    statistics: ItemStatistics
    builder: ExampleBuilder
    requests: Requests
    examples: pl.DataFrame


def build(actions: pl.DataFrame, of: Contract, sequence_length: int = 4) -> Built:
    rows = with_rows(actions.sort("user_id", "timestamp", maintain_order=True), pl.Series(ITEM_IDS))
    log = UserLog.from_actions(rows, of)
    rows = rows.with_columns(pl.col("timestamp").dt.epoch("us"))
    positives = rows.filter(pl.col("action").is_in(of.names(Role.POSITIVE)))
    counts = daily_counts(positives.select("item", "timestamp", user=numbers(positives, ["user_id"])))
    statistics = ItemStatistics.from_daily(counts, np.array(CREATED))
    items, features = item_table(), schema(of, sequence_length)
    builder = ExampleBuilder(log, items, statistics, features, items.hash, cross_codes(items, features))
    requests = shown(rows, of)
    return Built(log, statistics, builder, requests, builder.build(requests))


def slow_statistics(actions: pl.DataFrame, item_id: str, at: datetime) -> list[float]:
    """The same numbers as `ItemStatistics`, by going through the log."""
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    past = [
        (r["user_id"], (midnight - r["timestamp"]).total_seconds() / 86400)
        for r in actions.iter_rows(named=True)
        if r["item_id"] == item_id and r["action"] in ("buy", "save") and r["timestamp"] < midnight
    ]
    created = CREATED[ITEM_IDS.index(item_id)]
    age = (
        -1.0
        if created < 0
        else max(0.0, (midnight - datetime.fromtimestamp(created / 1e6, UTC)).total_seconds() / 86400)
    )
    counts = [sum(d <= 7 for _, d in past), sum(d <= 28 for _, d in past), len(past), len({u for u, _ in past})]
    return [*np.log1p(counts), float(np.log1p(1 + age))]


def slow_example(actions: pl.DataFrame, of: Contract, row: dict[str, object], sequence_length: int = 4) -> Example:
    """The example of one request, from one user's history."""
    at = row["timestamp"]
    assert isinstance(at, datetime)
    built = UserLog.from_actions(
        with_rows(actions.sort("user_id", "timestamp", maintain_order=True), pl.Series(ITEM_IDS)), of
    )
    candidates = np.array(row["candidate_item"], np.int32)
    numeric = [slow_statistics(actions, ITEM_IDS[c], at) for c in candidates]
    return build_example(
        built.history(str(row["user_id"])),
        candidates,
        int(at.timestamp() * 1e6),
        item_table(),
        schema(of, sequence_length),
        user_id=str(row["user_id"]),
        surface=np.array(row["candidate_surface"], np.int32),
        numeric=np.array(numeric, np.float32),
    )
