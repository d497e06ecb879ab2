"""The steps from boards and log to graph, pairs and neighbourhoods."""

from collections import defaultdict
from dataclasses import fields
from datetime import date, timedelta
from itertools import pairwise, product

import numpy as np
import polars as pl
import pytest

from components.contract import Role, midnight
from components.errors import UserError
from components.graph.bipartite import BipartiteGraph
from components.graph.neighbours import Neighbourhoods
from components.graph.walks import WalkConfig, Walker
from components.history.items import ItemTable
from components.history.schema import id_hash
from pinloom.graph.pairs import OWNED, PAIR_COLUMNS, owner_of
from pinloom.lake import Lake
from pinloom.steps import neighbourhoods
from pinloom.steps.base import load_step, run_step
from tests.platform.features import small
from tests.platform.graph import shelves

PAIRS = {"window_hours": 48, "per_step": 10_000}


def files(lake, manifest, output):
    return {uri.rsplit("/", 1)[-1]: lake.local_path(uri) for uri in manifest.output(output).uris}


def graph_of(lake, manifest) -> BipartiteGraph:
    return BipartiteGraph.load(files(lake, manifest, "graph"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A lake with features of the small log and boards."""
    lake, settings = small.local(tmp_path_factory.mktemp("graph"))
    spec = shelves.spec({"pairs": PAIRS})
    shelves.publish(lake, spec, shelves.boards())
    features = small.run(lake, settings, spec, "features")
    return lake, settings, spec, ItemTable.load(files(lake, features, "items"))


@pytest.fixture(scope="module")
def built(world):
    lake, settings, spec, _ = world
    return small.run(lake, settings, spec, "graph")


def saves(items, until):
    """{board: items} of the boards before `until`, undated saves included, boards of one item left out."""
    rows = shelves.boards().filter(pl.col("timestamp").is_null() | (pl.col("timestamp") < midnight(until)))
    found = defaultdict(set)
    for board, item in zip(rows["board_id"], items.rows(rows["item_id"]).tolist(), strict=True):
        found[board].add(item)
    return [known for held in found.values() if len(known := held - {0}) > 1]


def test_the_graph_holds_what_was_saved_before_the_validation_split(world, built):
    lake, _, spec, items = world
    graph = graph_of(lake, built)
    expected = saves(items, spec.contract.splits.validation)
    assert graph.items == len(items)
    held = [set(graph.board_items[a:b].tolist()) for a, b in pairwise(graph.board_offsets)]
    assert sorted(map(sorted, held)) == sorted(map(sorted, expected))
    assert built.metrics["until"] == spec.contract.splits.validation.isoformat()
    assert built.metrics["edges"] == graph.edges
    assert built.metrics["edges_of_unknown_items"] > 0
    assert built.metrics["edges_undated"] > 0


def test_with_rolling_splits_the_graph_ends_where_the_snapshots_validation_begins(tmp_path):
    lake, settings = small.local(tmp_path)
    rolling = small.spec(splits={"burn_in": small.START, "validation": 2, "test": 1}).contract
    spec = shelves.spec({"pairs": PAIRS}).model_copy(update={"contract": rolling})
    shelves.publish(lake, spec, shelves.boards())
    small.run(lake, settings, spec, "features")
    until = small.run(lake, settings, spec, "graph").metrics["until"]
    assert until == (small.LAST - timedelta(days=2)).isoformat()


def test_where_rankers_learn_from_a_day_on_the_graph_ends_before_it(tmp_path):
    lake, settings = small.local(tmp_path)
    spec = shelves.spec({"pairs": PAIRS})
    shelves.publish(lake, spec, shelves.boards())
    start = small.START + timedelta(days=4)
    features = small.run(lake, settings, spec, "features", train_start=start)
    items = ItemTable.load(files(lake, features, "items"))
    built = small.run(lake, settings, spec, "graph")
    assert built.metrics["until"] == start.isoformat()
    assert built.metrics["edges"] == sum(map(len, saves(items, start)))


def test_a_later_date_lets_later_edges_in_and_what_follows_it_changes_nothing(world):
    lake, settings, spec, items = world
    for until in (small.START + timedelta(days=3), small.LAST):
        graph = graph_of(lake, small.run(lake, settings, spec, "graph", until=until.isoformat()))
        assert sorted(graph.board_degree) == sorted(map(len, saves(items, until)))


def test_the_stored_order_of_saves_changes_no_byte(world, built, tmp_path):
    _, settings, spec, _ = world
    other = Lake(f"file://{tmp_path}/lake")
    shelves.publish(other, spec, shelves.boards().sample(fraction=1, shuffle=True, seed=3))
    small.run(other, settings, spec, "features")
    again = small.run(other, settings, spec, "graph")
    assert [f.sha256 for f in again.output("graph").files] == [f.sha256 for f in built.output("graph").files]


def test_pairs_lead_from_a_users_moment_to_the_next_by_the_time_of_the_positive(world, built):
    lake, _, spec, items = world
    likes = small.actions().filter(pl.col("action") == "like")
    moments: dict = defaultdict(lambda: defaultdict(set))
    for user, item, at in zip(likes["user_id"], items.rows(likes["item_id"]).tolist(), likes["timestamp"], strict=True):
        moments[id_hash(user)][at].add(item)
    expected: dict = defaultdict(list)
    for user, times in moments.items():
        for (before, a), (after, b) in pairwise(sorted(times.items())):
            if after - before <= timedelta(hours=48):
                pairs = [(user, q, i, after) for q, i in product(a, b) if q != i]
                expected[split_of(spec, after)] += pairs
    for split in ("train", "validation", "test"):
        got = small.read(lake, built, "pairs", split)
        assert got.columns == list(PAIR_COLUMNS)
        stamps = pl.from_epoch(got["timestamp"], "us").dt.replace_time_zone("UTC")
        rows = list(zip(got["user_hash"], got["query"], got["positive"], stamps, strict=True))
        assert sorted(rows) == sorted(expected[split])
        assert built.metrics[f"pairs_{split}"] == len(rows) > 0


def split_of(spec, moment):
    for split in ("train", "validation", "test"):
        start, stop = spec.contract.splits.interval(split)
        if start <= moment < stop:
            return split
    return None


def test_pairs_may_come_from_boards(world):
    lake, settings, _, items = world
    spec = shelves.spec({"pairs": {"source": "boards", "window_hours": 24 * 30, "per_step": 10_000}})
    manifest = small.run(lake, settings, spec, "graph")
    got = small.read(lake, manifest, "pairs")
    rows = (
        shelves.boards()
        .with_columns(item=pl.Series(items.rows(shelves.boards()["item_id"])))
        .filter(pl.col("item") > 0)
    )
    held = rows.unique(["board_id", "item"]).group_by("board_id").len()["len"]
    assert got.height == sum(n * (n - 1) // 2 for n in held)
    assert (
        got.schema
        == small.read(lake, small.run(lake, settings, shelves.spec({"pairs": PAIRS}), "graph"), "pairs").schema
    )
    assert got["user_hash"].unique().to_list() == [0]


def test_pairs_of_boards_that_are_requests_know_their_user(tmp_path):
    lake, settings = small.local(tmp_path)
    seen = small.actions()
    table = shelves.publish(
        lake, shelves.spec(), seen.select(board_id="request_id", item_id="item_id", timestamp="timestamp")
    )
    features = small.run(lake, settings, shelves.spec(), "features")
    items = ItemTable.load(files(lake, features, "items"))
    pairs = {"source": "boards", "window_hours": 24 * 30, "per_step": 10_000}
    plain, owned = (
        small.read(lake, small.run(lake, settings, shelves.spec({"pairs": {**pairs, **more}}), "graph"), "pairs")
        for more in ({}, {"board_is": "request"})
    )
    assert plain.drop("user_hash").equals(owned.drop("user_hash"))
    assert set(plain["user_hash"]) == {0}
    wanted = shelves.spec().contract.names(Role.POSITIVE)
    bought = set(seen.filter(pl.col("action").is_in(wanted))["request_id"])
    rows = zip(
        *(seen[c].to_list() for c in ("request_id", "user_id")), items.rows(seen["item_id"]).tolist(), strict=True
    )
    held = {(request if request in bought else 0, user, item) for request, user, item in rows}
    owners = {(id_hash(user) if request else 0, item) for request, user, item in held}
    assert {(u, i) for u, q, p in owned.select("user_hash", "query", "positive").iter_rows() for i in (q, p)} <= owners
    assert owned["user_hash"].n_unique() > 5
    assert table.output("boards").rows == seen.height


def test_a_board_has_the_user_that_the_log_names_alone():
    owned = np.array([(7, 70), (3, 30), (7, 70), (5, 50), (5, 51)], OWNED)
    assert owner_of(np.array([3, 4, 5, 7, 9, 3]), owned).tolist() == [30, 0, 0, 70, 0, 30]
    assert owner_of(np.array([3]), owned[:0]).tolist() == [0]


@pytest.mark.parametrize("board", ["user", "session"])
def test_edges_may_come_from_actions_with_users_or_sessions_as_boards(world, board):
    lake, settings, _, items = world
    declared = {"edges": [{"source": "actions", "board": board}], "pruning": {"min_board_items": 1}, "pairs": PAIRS}
    spec = shelves.spec(declared)
    graph = graph_of(lake, small.run(lake, settings, spec, "graph"))
    until = midnight(spec.contract.splits.validation)
    likes = small.actions().filter(pl.col("action") == "like", pl.col("timestamp") < until)
    held = defaultdict(list)
    # Requests are hours apart: each is a session.
    for user, at, item in likes.select("user_id", "timestamp", "item_id").iter_rows():
        held[user if board == "user" else (user, at)].append(item)
    assert sorted(graph.board_degree) == sorted(len(set(h)) for h in held.values())
    assert graph.board_weights.sum() == sum(map(len, held.values()))
    assert graph.degree[0] == 0
    assert len(items) == graph.items


def test_edges_of_several_sources_meet_in_the_items_only_and_weigh_what_is_declared(world, built):
    lake, settings, _, _ = world
    both = [{"source": "boards", "weight": 2.0}, {"source": "actions", "board": "user", "weight": 0.5}]
    graph = graph_of(lake, small.run(lake, settings, shelves.spec({"edges": both, "pairs": PAIRS}), "graph"))
    users = graph_of(
        lake, small.run(lake, settings, shelves.spec({"edges": [{"source": "actions"}], "pairs": PAIRS}), "graph")
    )
    shelved = graph_of(lake, built)
    assert graph.boards == shelved.boards + users.boards
    assert graph.item_weights.sum() == 2 * shelved.item_weights.sum() + 0.5 * users.item_weights.sum()


def test_edges_lose_weight_with_age(world):
    lake, settings, _, items = world
    spec = shelves.spec({"half_life_days": 2.0, "pairs": PAIRS, "pruning": {"min_board_items": 1}})
    graph = graph_of(lake, small.run(lake, settings, spec, "graph"))
    until = midnight(spec.contract.splits.validation)
    rows = shelves.boards().filter(pl.col("timestamp").is_null() | (pl.col("timestamp") < until))
    rows = rows.filter(pl.Series(items.rows(rows["item_id"])) > 0)
    age = [(until - t).total_seconds() / 86400 if t else 0 for t in rows["timestamp"]]
    assert graph.item_weights.sum() == pytest.approx(sum(0.5 ** (a / 2) for a in age), rel=1e-5)


def test_no_boards_or_no_edges_or_no_pairs_are_answered_with_the_remedy(tmp_path):
    lake, settings = small.local(tmp_path)
    spec = shelves.spec({"pairs": PAIRS})
    shelves.publish(lake, spec, None)
    small.run(lake, settings, spec, "features")
    with pytest.raises(UserError, match=r"graph\.edges"):
        small.run(lake, settings, spec, "graph")
    acting = {"edges": [{"source": "actions"}], "pairs": PAIRS}
    with pytest.raises(UserError, match="until"):
        small.run(lake, settings, shelves.spec(acting), "graph", until=date(2020, 1, 1).isoformat())
    with pytest.raises(UserError, match="window_hours"):
        small.run(lake, settings, shelves.spec({**acting, "pairs": {"window_hours": 0.001}}), "graph")


def test_neighbourhoods_are_those_of_the_walks_whatever_the_shards(world, built, monkeypatch):
    lake, settings, spec, _ = world
    monkeypatch.setattr(neighbourhoods, "SHARD", 7)
    params: dict = {"top": 6, "walks": 32, "length": 4, "band_size": 5, "seed": 9}
    step = load_step("neighbourhoods")
    manifest = run_step(step, lake=lake, settings=settings, spec=spec, params=params, inputs={"graph": built})
    near = Neighbourhoods.load(files(lake, manifest, "neighbourhoods"))
    band = np.load(files(lake, manifest, "band")["band.npy"])
    expected = Walker(graph_of(lake, built), WalkConfig(**params)).walk()
    for f in fields(near):
        np.testing.assert_array_equal(getattr(near, f.name), getattr(expected.neighbourhoods, f.name))
    np.testing.assert_array_equal(band, expected.band)
    assert manifest.metrics["items_with_neighbours"] == (expected.reached > 0).sum() > 0
