"""Inferred exposures: a sample that is uniform, reproducible and blind to the order of product ids."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from pinloom.datasets.completejourney.exposures import offers, sample


def slow_sample(baskets, offered, bought, k, seed):
    """The twin: one basket at a time, sets and a sort."""
    from pinloom.datasets.completejourney.exposures import keys, mix

    rows = []
    for store, basket in baskets.select("store_id", "basket_id").iter_rows():
        promoted = set(offered.filter(pl.col("store_id") == store)["product_id"])
        taken = set(bought.filter(pl.col("basket_id") == basket)["product_id"])
        free = sorted(promoted - taken)
        scores = mix(keys(np.array([basket]), seed) ^ keys(np.array(free, dtype=np.int64), 0))
        for i in np.argsort(scores)[:k]:
            rows.append((basket, free[i], min(1.0, k / len(free))))
    return rows


def world(baskets: int, stores: int, products: int, seed: int):
    rng = np.random.default_rng(seed)
    b = pl.DataFrame({"basket_id": np.arange(baskets) + 31_000_000_000, "store_id": rng.integers(stores, size=baskets)})
    o = pl.DataFrame({"store_id": rng.integers(stores, size=products), "product_id": rng.integers(500, size=products)})
    o = o.unique(maintain_order=True)
    bought = b.join(o, on="store_id").sample(fraction=0.1, seed=seed)
    return b, o, bought


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 120), st.integers(1, 12), st.integers(0, 5))
def test_the_matrix_agrees_with_its_slow_twin(baskets, stores, products, k, seed):
    b, o, bought = world(baskets, stores, products, seed)
    fast = sample(b, o, bought, k, seed)
    assert sorted(fast.iter_rows()) == sorted(slow_sample(b, o, bought, k, seed))


def test_a_basket_draws_the_same_whatever_comes_with_it():
    b, o, bought = world(50, 2, 200, 1)
    whole = sample(b, o, bought, 5, seed=3)
    alone = pl.concat([sample(b[i], o, bought.join(b[i], on="basket_id", how="semi"), 5, seed=3) for i in range(50)])
    assert alone.sort(alone.columns).equals(whole.sort(whole.columns))
    assert not sample(b, o, bought, 5, seed=4).sort(whole.columns).equals(whole.sort(whole.columns))


def test_every_product_is_drawn_alike_wherever_its_id_lies():
    b = pl.DataFrame({"basket_id": np.arange(4000), "store_id": np.zeros(4000, dtype=np.int64)})
    o = pl.DataFrame({"store_id": np.zeros(100, dtype=np.int64), "product_id": np.arange(100)})
    none = pl.DataFrame(schema={"store_id": pl.Int64, "basket_id": pl.Int64, "product_id": pl.Int64})
    drawn = sample(b, o, none, 10, seed=0)
    assert (drawn.group_by("basket_id").len()["len"] == 10).all()
    assert (drawn["sampling_probability"] == 0.1).all()
    counts = drawn["product_id"].value_counts()["count"].to_numpy()
    chi2 = ((counts - 400) ** 2 / 400).sum()
    assert len(counts) == 100
    assert 55 < chi2 < 155  # 99 degrees of freedom, less spread for draws without replacement


def test_promotion_codes_become_one_surface():
    promotions = pl.DataFrame(
        {
            "store_id": [1, 1, 1, 1],
            "product_id": [7, 8, 9, 6],
            "display_location": ["5", "0", "3", "0"],
            "mailer_location": ["0", "A", "D", "0"],
        }
    )
    surfaces = dict(offers(promotions).select("product_id", "surface").iter_rows())
    assert surfaces == {7: "display:5", 8: "mailer:A", 9: "display:3+mailer:D"}
