"""Requests: which items were shown together to a user, and what the user then did with them."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from components.contract import Contract, Role

REQUEST = ["user_id", "request_id"]


@dataclass(frozen=True)
class Requests:
    """Ranking rows.

    Attributes:
        requests: `request_id`, `user_id`, `timestamp` (µs since epoch), one row each.
        candidates: `request_id`, `user_id`, `item` (row), `surface`, `sampling` (probability of the row), `labels`.
    """

    requests: pl.DataFrame
    candidates: pl.DataFrame


def with_request_ids(actions: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Rows without a request id get one per session: `<user>@<µs of the session's first row>`.

    A session ends after `session_gap_minutes` without any row. `timestamp` is in µs since epoch.
    """
    missing = actions.filter(pl.col("request_id").is_null())
    if missing.is_empty():
        return actions
    gap = contract.session_gap_minutes * 60e6
    missing = missing.sort("user_id", "timestamp", maintain_order=True).with_columns(
        begins=(pl.col("timestamp").diff() > gap).fill_null(True) | (pl.col("user_id") != pl.col("user_id").shift())
    )
    start = pl.when("begins").then("timestamp").forward_fill()
    named = missing.with_columns(request_id=pl.concat_str("user_id", pl.lit("@"), start.cast(pl.String)))
    return pl.concat([actions.filter(pl.col("request_id").is_not_null()), named.drop("begins")])


def shown(actions: pl.DataFrame, contract: Contract) -> Requests:
    """Requests of one bucket from its impressions; labels are bitmasks of heads.

    A label belongs to an exposure of the same user, request and item; where the request is a session, only from the
    exposure on. An item shown twice in a request counts once, from its first exposure.

    Args:
        actions: `user_id`, `item` (row), `action`, `timestamp` (µs), `surface`, `request_id`, `event_id`,
            `sampling_probability`.
    """
    named = actions.with_columns(in_session=pl.col("request_id").is_null()).pipe(with_request_ids, contract)
    is_exposure = pl.col("action").is_in(contract.names(Role.IMPRESSION))
    exposed = (
        named.filter(is_exposure, pl.col("item") > 0)
        .sort("timestamp", "event_id")
        .unique([*REQUEST, "item"], keep="first", maintain_order=True)
        .select(
            *REQUEST, "item", "timestamp", "surface", "in_session", sampling=pl.col("sampling_probability").fill_null(1)
        )
    )
    labels = exposed.join(_bits(named.filter(~is_exposure), contract), on=[*REQUEST, "item"])
    labels = labels.filter(~pl.col("in_session") | (pl.col("timestamp_right") >= pl.col("timestamp")))
    candidates = exposed.join(
        labels.group_by(*REQUEST, "item").agg(labels=pl.col("bit").bitwise_or()), on=[*REQUEST, "item"], how="left"
    )
    return Requests(
        requests=exposed.group_by(REQUEST).agg(pl.col("timestamp").min()),
        candidates=candidates.select(
            *REQUEST, "item", "surface", "sampling", pl.col("labels").fill_null(0).cast(pl.Int32)
        ),
    )


def full(requests: pl.DataFrame, actions: pl.DataFrame, contract: Contract) -> Requests:
    """Requests with everything that could have been shown as candidates; labels are what happened in them.

    Surfaces are unknown here: the sampled exposures know those of some candidates only, which would tell them apart.

    Args:
        requests: rows of the contract's `requests` with `timestamp` in µs and `items` (rows of `item_ids`).
        actions: as for `shown`.
    """
    candidates = (
        requests.select(*REQUEST, item="items").explode("item").filter(pl.col("item") > 0).unique([*REQUEST, "item"])
    )
    done = _bits(actions.filter(pl.col("request_id").is_in(requests["request_id"].implode())), contract)
    labels = done.group_by(*REQUEST, "item").agg(labels=pl.col("bit").bitwise_or())
    return Requests(
        requests=requests.select(*REQUEST, "timestamp"),
        candidates=candidates.join(labels, on=[*REQUEST, "item"], how="left").select(
            *REQUEST,
            "item",
            surface=pl.lit(None, pl.String),
            sampling=pl.lit(1.0),
            labels=pl.col("labels").fill_null(0).cast(pl.Int32),
        ),
    )


def _bits(actions: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """`user_id`, `request_id`, `item`, `timestamp`, `bit` of the actions that have a head."""
    bits = {a.name: 1 << contract.heads.index(a.head) for a in contract.actions if a.head}
    return actions.filter(pl.col("action").is_in(list(bits))).select(
        *REQUEST, "item", "timestamp", bit=pl.col("action").replace_strict(bits, return_dtype=pl.Int32)
    )
