"""Daily counts of many buckets add up to those of one."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from components.history import kernels
from components.history.statistics import DAY, ITEM_NUMERIC, ItemStatistics, add_up, daily_counts

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)), max_size=30)


def _positives(rows):
    schema = {"user": pl.Int64, "item": pl.Int64, "timestamp": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("timestamp") * DAY + 5)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, merge_at=st.sampled_from([1, 4, 1000]))
def test_buckets_of_users_add_up(rows, merge_at):
    frame = _positives(rows)
    parts = [daily_counts(frame.filter(pl.col("user") % 3 == b)) for b in range(3)]
    whole = daily_counts(frame).sort("item", "day")
    assert add_up(parts, rows=merge_at).sort("item", "day").rows() == whole.rows()


def test_an_empty_log_has_statistics_of_zero():
    statistics = ItemStatistics.from_daily(daily_counts(_positives([])), np.array([-1, 3 * DAY]))
    found = np.expm1(statistics.as_of(np.array([0, 1]), np.array([5, 5])))
    np.testing.assert_allclose(found, [[0] * len(ITEM_NUMERIC), [0, 0, 0, 0, 3]], atol=1e-5)


def test_an_unknown_age_differs_from_that_of_an_item_born_today():
    statistics = ItemStatistics.from_daily(daily_counts(_positives([])), np.array([-1, 5 * DAY + 9, 5 * DAY, 9 * DAY]))
    unknown, today, midnight, later = statistics.as_of(np.arange(4), np.full(4, 5))[:, 4]
    assert unknown == 0 < today == midnight == later


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, asked=st.lists(st.tuples(st.integers(0, 2), st.integers(-3, 40)), max_size=8))
def test_statistics_count_what_was_before_the_midnight(rows, asked):
    """Days 0, 7, …: differences of exactly 7 and 28 days happen."""
    log = [(user, item, day * 7) for user, item, day in rows]
    statistics = ItemStatistics.from_daily(daily_counts(_positives(log)), np.array([-1, 0, DAY]))
    items, days = np.array(asked, np.int64).reshape(-1, 2).T
    found = np.expm1(statistics.as_of(items, days))
    for (item, day), numbers in zip(asked, found, strict=True):
        past = [(user, day - d) for user, i, d in log if i == item and d < day]
        counts = [sum(ago <= 7 for _, ago in past), sum(ago <= 28 for _, ago in past), len(past)]
        age = 0 if item == 0 else 1 + max(0, day - (item == 2))
        np.testing.assert_allclose(numbers, [*counts, len({u for u, _ in past}), age], rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.sampled_from([0, 1, 2, 7, 64, 65, 200]), max_size=5), seed=st.integers(0, 99))
def test_segments_are_sorted_each_by_itself_whatever_their_size(sizes, seed):
    end = np.cumsum(sizes, dtype=np.int64)
    begin = end - np.array(sizes, np.int64)
    key = np.random.default_rng(seed).integers(0, 2**64, sum(sizes), dtype=np.uint64)
    chosen = np.random.default_rng(seed).permutation(len(sizes))
    out = np.empty(sum(sizes), np.int64)
    kernels.sort_segments(begin[chosen], end[chosen], key, out)
    wanted = [sorted(range(begin[s], end[s]), key=lambda i: key[i]) for s in chosen]
    assert out.tolist() == [i for segment in wanted for i in segment]
