"""Daily counts of many buckets add up to those of one."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

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
    np.testing.assert_allclose(found, [[0] * len(ITEM_NUMERIC), [0, 0, 0, 0, 2]], atol=1e-5)
