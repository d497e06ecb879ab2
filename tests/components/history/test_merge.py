"""The merge of snapshot and tail against sets of events."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.history.merge import COLUMNS, empty, merge, without

EVENTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=15, unique_by=lambda e: e[1])


def _columns(events):
    """Newest first. `timestamp` and `event` from the pairs, the rest follows from the event."""
    newest = sorted(events, key=lambda e: (-e[0], -e[1]))
    at = {"timestamp": [t for t, _ in newest], "event": [e for _, e in newest]}
    others = {name: [e * 10 for _, e in newest] for name in COLUMNS if name not in at}
    return {name: np.array({**at, **others}[name], dtype) for name, dtype in COLUMNS.items()}


@settings(max_examples=200, deadline=None)
@given(older=EVENTS, newer=EVENTS, limit=st.integers(1, 30))
def test_all_events_once_newest_first(older, newer, limit):
    known = {e for _, e in older}
    merged = merge(_columns(older), _columns(newer), ordered_ties=False, limit=limit)
    events = older + [e for e in newer if e[1] not in known]
    wanted = sorted(events, key=lambda e: (-e[0], -e[1]))[:limit]
    assert list(zip(merged["timestamp"].tolist(), merged["event"].tolist(), strict=True)) == wanted
    assert (merged["item_key"] == merged["event"] * 10).all()


@settings(max_examples=100, deadline=None)
@given(events=EVENTS, data=st.data())
def test_it_does_not_matter_in_how_many_steps_events_arrive(events, data):
    cut = data.draw(st.integers(0, len(events)))
    whole = merge(empty(), _columns(events), ordered_ties=False, limit=100)
    parts = merge(_columns(events[:cut]), _columns(events[cut:]), ordered_ties=False, limit=100)
    for name in COLUMNS:
        np.testing.assert_array_equal(whole[name], parts[name])


def test_ordered_ties_put_later_arrivals_first():
    first, second = _columns([(1, 9), (0, 3)]), _columns([(1, 2)])
    merged = merge(first, second, ordered_ties=True, limit=10)
    assert merged["event"].tolist() == [2, 9, 3]


def test_without_drops_exactly_the_given_events():
    left = without(_columns([(1, 1), (2, 2), (3, 3)]), np.array([2, 7]))
    assert left["event"].tolist() == [3, 1]
