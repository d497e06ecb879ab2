"""What becomes an edge, and that reading in pieces changes nothing."""

from datetime import UTC, datetime, timedelta

import polars as pl

from pinloom.graph import edges
from pinloom.graph.edges import with_sessions
from tests.platform.features import small
from tests.platform.graph import shelves

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def sessions(rows, gap_minutes=30.0):
    """Groups of row numbers that share a session."""
    frame = pl.DataFrame(
        [(i, user, NOON + timedelta(minutes=minute), given) for i, (user, minute, given) in enumerate(rows)],
        schema={"row": pl.Int64, "user_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "session_id": pl.String},
        orient="row",
    )
    return {frozenset(group) for group in with_sessions(frame, gap_minutes).group_by("session_id").agg("row")["row"]}


def test_a_session_ends_with_a_longer_pause_of_its_user():
    rows = [("a", 0, None), ("a", 30, None), ("b", 40, None), ("a", 61, None), ("a", 200, None)]
    assert sessions(rows) == {frozenset([0, 1]), frozenset([3]), frozenset([2]), frozenset([4])}


def test_given_sessions_are_kept_and_are_of_one_user():
    rows = [("a", 0, "1"), ("a", 500, "1"), ("b", 0, "1"), ("a", 1, "2"), ("a", 2, None)]
    assert sessions(rows) == {frozenset([0, 1]), frozenset([2]), frozenset([3]), frozenset([4])}


def test_a_session_goes_on_while_actions_follow_each_other_even_when_some_name_theirs():
    rows = [("a", 0, None), ("a", 20, "named"), ("a", 40, None)]
    assert sessions(rows) == {frozenset([0, 2]), frozenset([1])}


def test_pieces_of_any_size_give_the_same_graph(tmp_path, monkeypatch):
    hashes = []
    for rows in (1_000_000, 7):
        monkeypatch.setattr(edges, "ROWS", rows)
        lake, settings = small.local(tmp_path / str(rows))
        spec = shelves.spec({"pairs": {"window_hours": 48}})
        shelves.publish(lake, spec, shelves.boards())
        small.run(lake, settings, spec, "features")
        hashes.append([f.sha256 for f in small.run(lake, settings, spec, "graph").output("graph").files])
    assert hashes[0] == hashes[1]
