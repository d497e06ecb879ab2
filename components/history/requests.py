"""Requests: which items were shown together to a user, and what the user then did with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.contract import Contract, Role
from components.history.log import numbers

REQUEST = ["user_id", "request_id"]
ITEMS = 2**31
"""More than there are rows of items: (request, item) as one integer."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Requests:
    """Ranking rows.

    Attributes:
        requests: `request` (number), `request_id`, `user_id`, `timestamp` (µs since epoch), one row each.
        candidates: `request`, `item` (row), `surface`, `sampling` (probability of the row), `labels`, one row each,
            in the order of (request, item).
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
    named = named.with_columns(pair=numbers(named, REQUEST) * ITEMS + named["item"].to_numpy())
    impression = pl.col("action").is_in(contract.names(Role.IMPRESSION)) & (pl.col("item") > 0)
    at = _first(named, np.flatnonzero(named.select(impression).to_series().to_numpy()))
    exposed = named.select("pair", "item", "surface", "timestamp", "in_session", "sampling_probability")[at]
    number = exposed["pair"].to_numpy() // ITEMS
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    earliest = np.minimum.reduceat(exposed["timestamp"].to_numpy(), starts) if len(starts) else starts
    requests = named.select(REQUEST)[at[starts]].with_columns(timestamp=earliest, request=number[starts])
    labels = _labels(exposed, _answers(named, contract))
    sampling = pl.col("sampling_probability").fill_null(1)
    return Requests(requests, exposed.select("item", "surface", request=number, sampling=sampling, labels=labels))


def full(requests: pl.DataFrame, actions: pl.DataFrame, contract: Contract) -> Requests:
    """Requests with everything that could have been shown as candidates; labels are what happened in them.

    Surfaces are unknown here: the sampled exposures know those of some candidates only, which would tell them apart.

    Args:
        requests: rows of the contract's `requests` with `timestamp` in µs and `items` (rows of `item_ids`).
        actions: as for `shown`.
    """
    numbered = requests.select(*REQUEST, "timestamp").with_row_index("request").cast({"request": pl.Int64})
    pair = pl.col("request") * ITEMS + pl.col("item")
    listed = numbered.select("request", item=requests["items"]).explode("item").filter(pl.col("item") > 0)
    candidates = listed.with_columns(pair=pair, in_session=False, timestamp=0).unique("pair").sort("pair")
    happened = _answers(actions, contract).join(numbered.select(*REQUEST, "request"), on=REQUEST)
    labels = _labels(candidates, happened.with_columns(pair=pair))
    unknown = pl.lit(None, pl.String)
    return Requests(
        numbered, candidates.select("request", "item", surface=unknown, sampling=pl.lit(1.0), labels=labels)
    )


def _first(named: pl.DataFrame, exposed: Ints) -> Ints:
    """Of the rows `exposed`, the first exposure of each pair, in the order of pairs."""
    pairs = named["pair"].to_numpy()[exposed]
    order = np.argsort(pairs, kind="stable")
    begins = np.diff(pairs[order], prepend=-1) != 0
    first = exposed[order[begins]]
    number = np.cumsum(begins) - 1
    again = np.zeros(len(first), bool)
    again[number[~begins]] = True
    if again.any():
        at = exposed[order[again[number]]]
        rows = (
            named.select("pair", "timestamp", "event_id")[at].with_columns(row=at).sort("pair", "timestamp", "event_id")
        )
        first[again] = rows.unique("pair", keep="first", maintain_order=True)["row"]
    return first


def _answers(actions: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """The actions that have a head, with its `bit`."""
    bits = {a.name: 1 << contract.heads.index(a.head) for a in contract.actions if a.head}
    answers = actions.filter(pl.col("action").is_in(list(bits)))
    columns = [c for c in ("pair", "item", *REQUEST, "timestamp") if c in answers.columns]
    return answers.select(*columns, bit=pl.col("action").replace_strict(bits, return_dtype=pl.Int32))


def _labels(candidates: pl.DataFrame, answers: pl.DataFrame) -> pl.Series:
    """Bits of the answers to each candidate; `candidates` in the order of pairs."""
    pairs, wanted = candidates["pair"].to_numpy(), answers["pair"].to_numpy()
    labels = np.zeros(len(pairs), np.int32)
    if len(pairs):
        at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        later = answers["timestamp"].to_numpy() >= candidates["timestamp"].to_numpy()[at]
        counts = (pairs[at] == wanted) & (later | ~candidates["in_session"].to_numpy()[at])
        np.bitwise_or.at(labels, at[counts], answers["bit"].to_numpy()[counts])
    return pl.Series(labels)
