"""Inferred exposures: what was promoted in the store in the week of a basket, bought or not.

Nobody recorded what a household saw. The promotions table says which products stood on a display or in the mailer
of a store in a week; a basket from that store and week is taken to have been exposed to them.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

U64 = NDArray[np.uint64]


def mix(x: U64) -> U64:
    """splitmix64's finaliser: uniform, independent bits from any integers. [...] uint64 → [...] uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys(ids: pl.Series, seed: int) -> U64:
    """One 64-bit hash per integer id. [n]."""
    return mix(ids.to_numpy().astype(np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64))


def offers(promotions: pl.DataFrame) -> pl.DataFrame:
    """Promoted products of each store, one row each, with the promotion code as surface (`display:5+mailer:A`)."""
    display, mailer = (
        pl.when(pl.col(f"{kind}_location") != "0").then(pl.concat_str(pl.lit(f"{kind}:"), f"{kind}_location"))
        for kind in ("display", "mailer")
    )
    return (
        promotions.group_by("store_id", "product_id")
        .agg(pl.col("display_location", "mailer_location").max())
        .select("store_id", "product_id", surface=pl.concat_str(display, mailer, separator="+", ignore_nulls=True))
        .filter(pl.col("surface") != "")
        .sort("store_id", "product_id")
    )


def sample(baskets: pl.DataFrame, offered: pl.DataFrame, bought: pl.DataFrame, k: int, seed: int) -> pl.DataFrame:
    """Up to `k` promoted products per basket that were not bought, uniformly without replacement.

    The `k` with the lowest hash of (seed, basket, product) are taken: deterministic for each basket, whatever else
    is ingested with it, and blind to the order of product ids.

    Args:
        baskets: `basket_id`, `store_id`, one row per basket.
        offered: `store_id`, `product_id`, one row each.
        bought: `basket_id`, `product_id` of purchases.

    Returns:
        `basket_id`, `product_id`, `sampling_probability` = min(1, k / promoted and not bought).
    """
    offered_at = offered.partition_by("store_id", as_dict=True)
    parts = []
    for store, group in baskets.sort("store_id", "basket_id").partition_by("store_id", as_dict=True).items():
        if store in offered_at:
            products = offered_at[store]["product_id"].sort()
            parts.append(_sample_store(group["basket_id"], products, bought, k, seed))
    schema = {"basket_id": pl.Int64, "product_id": pl.Int64, "sampling_probability": pl.Float64}
    return pl.concat([pl.DataFrame(schema=schema), *parts])


def _sample_store(baskets: pl.Series, products: pl.Series, bought: pl.DataFrame, k: int, seed: int) -> pl.DataFrame:
    """`baskets` [b] and `products` [p] sorted and unique: a hash matrix [b, p], its k lowest columns per row."""
    scores = mix(keys(baskets, seed)[:, None] ^ keys(products, 0)[None, :])
    pairs = bought.filter(pl.col("basket_id").is_in(baskets.implode()), pl.col("product_id").is_in(products.implode()))
    taken = np.zeros(scores.shape, dtype=bool)
    taken[baskets.search_sorted(pairs["basket_id"]), products.search_sorted(pairs["product_id"])] = True
    scores[taken] = np.iinfo(np.uint64).max
    lowest = np.argpartition(scores, k - 1, axis=1)[:, :k] if len(products) > k else np.argsort(scores, axis=1)
    rows = np.repeat(np.arange(len(baskets)), lowest.shape[1])
    free = ~taken[rows, lowest.ravel()]
    probability = np.minimum(1.0, k / np.maximum(1, (~taken).sum(axis=1)))
    return pl.DataFrame(
        {
            "basket_id": baskets.gather(rows[free]),
            "product_id": products.gather(lowest.ravel()[free]),
            "sampling_probability": probability[rows[free]],
        }
    )
