"""Inferred exposures: what was promoted in the store in the week of a basket, bought or not.

Nobody recorded what a household saw. The promotions table says which products stood on a display or in the mailer
of a store in a week; a basket from that store and week is taken to have been exposed to them.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


def mix(x: U64) -> U64:
    """splitmix64's finaliser: uniform, independent bits from any integers. [...] uint64 → [...] uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys(ids: I64, seed: int) -> U64:
    """One 64-bit hash per integer id. [n]."""
    return mix(ids.astype(np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64))


def offers(promotions: pl.DataFrame) -> pl.DataFrame:
    """Promoted products of each store, one row each, with the promotion code as surface (`display:5+mailer:A`).

    Of the few products listed twice in a store and week the last listing counts.
    """
    display, mailer = (
        pl.when(pl.col(f"{kind}_location") != "0").then(pl.concat_str(pl.lit(f"{kind}:"), f"{kind}_location"))
        for kind in ("display", "mailer")
    )
    return (
        promotions.unique(["store_id", "product_id"], keep="last", maintain_order=True)
        .select("store_id", "product_id", surface=pl.concat_str(display, mailer, separator="+", ignore_nulls=True))
        .filter(pl.col("surface") != "")
    )


def assortment(sold: pl.DataFrame) -> pl.DataFrame:
    """Products that each store sold to anybody, one row each: what a basket there could have held.

    Args:
        sold: `store_id`, `product_id`: all purchases of a week, whoever is ingested.
    """
    distinct = sold.select("store_id", "product_id").unique(maintain_order=True)
    return distinct.with_columns(surface=pl.lit("shelf"))


def sample(baskets: pl.DataFrame, offered: pl.DataFrame, bought: pl.DataFrame, k: int, seed: int) -> pl.DataFrame:
    """Up to `k` promoted products per basket that were not bought, uniformly without replacement.

    The `k` with the lowest hash of (seed, basket, product) are taken: deterministic for each basket, whatever else
    is ingested with it, and blind to the order of product ids.

    Args:
        baskets: `store_id`, `basket_id`, one row per basket.
        offered: `store_id`, `product_id`, one row each.
        bought: `store_id`, `basket_id`, `product_id`: purchases of offered products.

    Returns:
        `basket_id`, `product_id`, `sampling_probability` = min(1, k / promoted and not bought).
    """
    basket_rows = _sorted(baskets.select("store_id", "basket_id"))
    offer_rows = _sorted(offered.select("store_id", "product_id"))
    bought_rows = _sorted(bought.select("store_id", "basket_id", "product_id"))
    parts = [
        _sample_store(_of(basket_rows, s)[:, 0], _of(offer_rows, s)[:, 0], _of(bought_rows, s), k, seed)
        for s in np.intersect1d(basket_rows[:, 0], offer_rows[:, 0])
    ]
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    basket, product, probability = (np.concatenate(column) for column in zip(none, *parts, strict=True))
    return pl.DataFrame({"basket_id": basket, "product_id": product, "sampling_probability": probability})


def _sorted(rows: pl.DataFrame) -> I64:
    """[n, columns] by the first column, then the second."""
    columns = rows.to_numpy()
    return columns[np.lexsort((columns[:, 1], columns[:, 0]))]


def _of(rows: I64, store: int) -> I64:
    """Rows whose first column, by which they are sorted, is `store`; without that column."""
    first, last = np.searchsorted(rows[:, 0], [store, store + 1])
    return rows[first:last, 1:]


def _sample_store(baskets: I64, products: I64, bought: I64, k: int, seed: int) -> tuple[I64, I64, NDArray[np.float64]]:
    """`baskets` [b], `products` [p] sorted, `bought` [n, 2]: a hash matrix [b, p], the k lowest columns of each row."""
    scores = mix(keys(baskets, seed)[:, None] ^ keys(products, 0)[None, :])
    taken = np.zeros(scores.shape, dtype=bool)
    taken[np.searchsorted(baskets, bought[:, 0]), np.searchsorted(products, bought[:, 1])] = True
    scores[taken] = np.iinfo(np.uint64).max
    lowest = np.argpartition(scores, k - 1, axis=1)[:, :k] if len(products) > k else np.argsort(scores, axis=1)
    rows, columns = np.repeat(np.arange(len(baskets)), lowest.shape[1]), lowest.ravel()
    free = ~taken[rows, columns]
    rows, columns = rows[free], columns[free]
    probability = np.minimum(1.0, k / np.maximum(1, (~taken).sum(axis=1)))
    return baskets[rows], products[columns], probability[rows]
