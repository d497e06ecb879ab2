"""The external build equals the graph built in memory, whatever the order and the pieces."""

import math
from collections import Counter, defaultdict
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UserError
from components.graph import build
from components.graph.bipartite import BipartiteGraph
from components.graph.build import GraphBuilder, Pruning

ALL = Pruning(min_board_items=1)


def edges(seed: int, n: int = 400, n_items: int = 60, n_boards: int = 30):
    rng = np.random.default_rng(seed)
    items = np.minimum(rng.zipf(1.5, n), n_items - 1).astype(np.int32)
    boards = rng.integers(0, 2**63 - 1, n_boards)[rng.integers(0, n_boards, n)]
    return items, boards, rng.choice([0.25, 0.5, 1.0], n).astype(np.float32)


def built(folder, items, boards, weights, pruning=ALL, category=None, n_items=60, pieces=3, parts=5):
    category = np.zeros(n_items, np.int32) if category is None else category
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(build, "parts_for", lambda expected: parts)
        builder = GraphBuilder(folder, category, len(items), pruning)
    for piece in np.array_split(np.arange(len(items)), pieces):
        builder.add(items[piece], boards[piece], weights[piece])
    counts = builder.finish()
    return BipartiteGraph.load(folder), counts


def in_memory(items, boards, weights, n_items=60):
    keys, numbers = np.unique(boards, return_inverse=True)
    return BipartiteGraph.from_edges(items, numbers.astype(np.int32), weights, n_items=n_items, n_boards=len(keys))


def same(one: BipartiteGraph, other: BipartiteGraph) -> None:
    for f in fields(one):
        np.testing.assert_array_equal(getattr(one, f.name), getattr(other, f.name), err_msg=f.name)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 500), st.integers(1, 9), st.integers(1, 9))
def test_pieces_and_parts_change_nothing(tmp_path_factory, seed, n, pieces, parts):
    items, boards, weights = edges(seed, n)
    folder = tmp_path_factory.mktemp("graph")
    graph, counts = built(folder, items, boards, weights, pieces=pieces, parts=parts)
    same(graph, in_memory(items, boards, weights))
    assert counts.edges == graph.edges
    assert counts.boards == graph.boards
    assert counts.items_with_edges == (graph.degree > 0).sum()
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{f.name}.npy" for f in fields(graph))


def test_the_order_of_arrival_changes_no_byte(tmp_path):
    items, boards, _ = edges(1, 2000)
    weights = np.random.default_rng(0).random(2000, np.float32)
    other = np.random.default_rng(5).permutation(2000)
    rules = Pruning(max_item_boards=5)
    one, _ = built(tmp_path / "one", items, boards, weights, rules)
    two, _ = built(tmp_path / "two", items[other], boards[other], weights[other], rules)
    same(one, two)


def test_both_directions_hold_the_same_edges(tmp_path):
    items, boards, weights = edges(2)
    graph, _ = built(tmp_path, items, boards, weights, Pruning(max_item_boards=3))
    forth = zip(np.repeat(np.arange(graph.items), graph.degree), graph.item_boards, graph.item_weights, strict=True)
    back = zip(
        graph.board_items, np.repeat(np.arange(graph.boards), graph.board_degree), graph.board_weights, strict=True
    )
    assert sorted(forth) == sorted(back)


def test_repeats_add_up_or_keep_the_largest_and_the_unknown_item_has_no_edge(tmp_path):
    items = np.array([1, 1, 1, 2, 0], np.int32)
    boards, weights = np.full(5, 7), np.array([0.25, 1.0, 0.5, 1.0, 1.0], np.float32)
    added, counts = built(tmp_path / "add", items, boards, weights, n_items=3)
    assert added.item_weights.tolist() == [1.75, 1.0]
    assert (counts.edges_read, counts.edges_repeated) == (4, 2)
    largest, _ = built(tmp_path / "largest", items, boards, weights, Pruning(repeats="largest"), n_items=3)
    assert largest.item_weights.tolist() == [1.0, 1.0]


def test_boards_of_the_wrong_size_go(tmp_path):
    items, boards, weights = edges(3, 200)
    graph, counts = built(tmp_path, items, boards, weights, Pruning(min_board_items=4, max_board_items=8))
    sizes = Counter(b for _, b in set(zip(items.tolist(), boards.tolist(), strict=True)))
    kept = sorted(b for b, n in sizes.items() if 4 <= n <= 8)
    assert graph.board_degree.tolist() == [sizes[b] for b in kept]
    assert counts.boards_of_wrong_size == len(sizes) - len(kept)


def test_mixed_boards_go_by_the_entropy_of_their_items_categories(tmp_path):
    items, boards, weights = edges(4, 300)
    category = np.random.default_rng(0).integers(0, 4, 60).astype(np.int32)
    graph, counts = built(tmp_path, items, boards, weights, Pruning(max_board_entropy=1.2), category)
    of_board = defaultdict(set)
    for item, board in zip(items.tolist(), boards.tolist(), strict=True):
        of_board[board].add(item)
    kept = [b for b in sorted(of_board) if len(of_board[b]) > 1 and entropy(of_board[b], category) <= 1.2]
    assert 0 < len(kept) < len(of_board)
    assert graph.board_degree.tolist() == [len(of_board[b]) for b in kept]
    assert counts.boards_mixed > 0


def entropy(items, category):
    counts = Counter(category[i] for i in items if category[i])
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


def test_a_popular_item_keeps_the_boards_of_its_own_topic(tmp_path):
    # Item 1 (category 1) lies on six boards; on two of them the others are of its category.
    boards = np.repeat(np.arange(6) * 2**59, 3)
    items = np.array([[1, 2, 3] if b in (1, 4) else [1, 4, 5] for b in range(6)], np.int32).ravel()
    category = np.array([0, 1, 1, 1, 2, 2], np.int32)
    weights = np.ones(len(items), np.float32)
    rules = Pruning(max_item_boards=2)
    graph, counts = built(tmp_path / "topic", items, boards, weights, rules, category, n_items=6)
    assert graph.item_boards[graph.item_offsets[1] : graph.item_offsets[2]].tolist() == [1, 4]
    assert counts.edges_of_popular_items == 4 + 2 + 2
    assert graph.degree.max() == 2
    sampled, _ = built(
        tmp_path / "sample", items, boards, weights, Pruning(max_item_boards=2, prune_by="sample"), category, n_items=6
    )
    assert sampled.degree.tolist() == [0, 2, 2, 2, 2, 2]


def test_degrees_shrink_by_the_declared_power(tmp_path):
    items, boards, weights = edges(6, 1500)
    before, _ = built(tmp_path / "before", items, boards, weights)
    after, _ = built(tmp_path / "after", items, boards, weights, Pruning(min_board_items=1, degree_power=0.5))
    assert after.degree.tolist() == [math.ceil(math.sqrt(d)) for d in before.degree]


def test_a_graph_is_read_back_from_a_folder_or_by_file_names_mapped_or_not(tmp_path):
    graph = in_memory(*edges(0))
    graph.save(tmp_path)
    same(graph, BipartiteGraph.load(tmp_path))
    assert isinstance(BipartiteGraph.load(tmp_path).item_boards, np.memmap)
    by_name = {p.name: str(p) for p in tmp_path.iterdir()}
    same(graph, BipartiteGraph.load(by_name, mmap=False))
    by_name.pop("board_items.npy")
    with pytest.raises(UserError, match=r"board_items\.npy"):
        BipartiteGraph.load(by_name)


def test_a_graph_knows_whether_its_weights_matter():
    items, boards = np.array([1, 1, 2], np.int32), np.array([0, 1, 1], np.int32)
    assert not BipartiteGraph.from_edges(items, boards, n_items=3, n_boards=2).is_weighted
    weights = np.array([1, 2, 2], np.float32)
    assert BipartiteGraph.from_edges(items, boards, weights, n_items=3, n_boards=2).is_weighted
