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
        requests: `request` (number), `request_id`, `user_id`, `timestamp` (µs since epoch), one row each.
        candidates: `request`, `item` (row), `surface`, `sampling` (probability of the row), `labels`, one row each.
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
    exposed = named.filter(pl.col("action").is_in(contract.names(Role.IMPRESSION)), pl.col("item") > 0)
    requests = exposed.group_by(REQUEST).agg(pl.col("timestamp").min()).with_row_index("request")
    exposed = _first(_numbered(exposed, requests))
    after = ~pl.col("in_session") | (pl.col("timestamp_right") >= pl.col("timestamp"))
    labels = exposed.select("pair", "in_session", "timestamp").join(_bits(named, requests, contract), on="pair")
    candidates = exposed.select(
        "pair", "request", "item", "surface", sampling=pl.col("sampling_probability").fill_null(1)
    )
    return Requests(requests, _labelled(candidates, labels.filter(after)))


def full(requests: pl.DataFrame, actions: pl.DataFrame, contract: Contract) -> Requests:
    """Requests with everything that could have been shown as candidates; labels are what happened in them.

    Surfaces are unknown here: the sampled exposures know those of some candidates only, which would tell them apart.

    Args:
        requests: rows of the contract's `requests` with `timestamp` in µs and `items` (rows of `item_ids`).
        actions: as for `shown`.
    """
    numbered = requests.select(*REQUEST, "timestamp").with_row_index("request")
    listed = requests.select(*REQUEST, item="items").explode("item").filter(pl.col("item") > 0)
    candidates = _numbered(listed, numbered).unique("pair")
    return Requests(
        numbered,
        _labelled(
            candidates.select("pair", "request", "item", surface=pl.lit(None, pl.String), sampling=pl.lit(1.0)),
            _bits(actions, numbered, contract),
        ),
    )


def _numbered(rows: pl.DataFrame, requests: pl.DataFrame) -> pl.DataFrame:
    """Rows of known requests with `request` and `pair`, one integer for (request, item)."""
    found = rows.join(requests.select(*REQUEST, "request"), on=REQUEST)
    return found.with_columns(pair=pl.col("request").cast(pl.Int64) * 2**31 + pl.col("item"))


def _first(exposed: pl.DataFrame) -> pl.DataFrame:
    if exposed["pair"].n_unique() == exposed.height:
        return exposed
    return exposed.sort("timestamp", "event_id").unique("pair", keep="first", maintain_order=True)


def _bits(actions: pl.DataFrame, requests: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """`pair`, `timestamp`, `bit` of the actions in the requests that have a head."""
    bits = {a.name: 1 << contract.heads.index(a.head) for a in contract.actions if a.head}
    rows = _numbered(actions.filter(pl.col("action").is_in(list(bits))), requests)
    return rows.select("pair", "timestamp", bit=pl.col("action").replace_strict(bits, return_dtype=pl.Int32))


def _labelled(candidates: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    masks = labels.group_by("pair").agg(labels=pl.col("bit").bitwise_or())
    joined = candidates.join(masks, on="pair", how="left")
    return joined.with_columns(pl.col("labels").fill_null(0).cast(pl.Int32)).drop("pair")
