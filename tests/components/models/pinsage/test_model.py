"""Three ways to the same vectors: Algorithm 1 item by item, minibatch sub-graphs, and layer-wise inference."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UserError
from components.history.schema import id_hash
from components.models.pinsage.artifact import load_pinsage, save_pinsage
from components.models.pinsage.catalogue import Catalogue
from components.models.pinsage.config import PAPER, PinSageConfig
from components.models.pinsage.inference import Inference, MemoryShards, embed
from components.models.pinsage.model import PinSage
from components.models.pinsage.subgraph import SubgraphBuilder


def random_catalogue(seed: int, items: int, top: int) -> Catalogue:
    """Neighbourhoods of all sizes, some empty; the unknown item in row 0."""
    rng = np.random.default_rng(seed)
    neighbours, weights = np.zeros((items, top), np.int32), np.zeros((items, top), np.float32)
    for row in range(1, items):
        others = np.setdiff1d(np.arange(1, items), [row])
        near = rng.choice(others, min(int(rng.integers(0, top + 1)), len(others)), replace=False)
        visits = np.sort(rng.integers(1, 50, len(near)))[::-1]
        neighbours[row, : len(near)] = near
        weights[row, : len(near)] = visits / max(visits.sum(), 1)
    return Catalogue(
        content=rng.normal(size=(items, 5)).astype(np.float32) * (np.arange(items) > 0)[:, None],
        category=rng.integers(0, 9, (items, 2)).astype(np.int32) * (np.arange(items) > 0)[:, None].astype(np.int32),
        neighbours=neighbours,
        weights=weights,
        degree=rng.integers(0, 9, items),
        band=np.zeros((items, 0), np.int32),
    )


def make(catalogue: Catalogue, **changed) -> PinSage:
    torch.manual_seed(0)
    fields = {"hidden": 8, "dim": 6, "category_dim": 3, "category_rows": 7, **changed}
    config = PinSageConfig(**{"layers": 2, "neighbours": catalogue.neighbours.shape[1], **fields})
    return PinSage(config, catalogue.content.shape[1], catalogue.category.shape[1], len(catalogue)).eval()


@torch.no_grad()
def item_by_item(model: PinSage, catalogue: Catalogue, item: int) -> torch.Tensor:
    """Algorithms 1 and 2 by recursion."""

    def state(row: int, layer: int) -> torch.Tensor:
        if layer == 0:
            described = catalogue.content[row : row + 1], catalogue.category[row : row + 1], np.array([row], np.int32)
            return model.describe(*map(torch.from_numpy, described))[0]
        convolve = model.convolutions[layer - 1]
        near = [(int(v), float(w)) for v, w in zip(catalogue.neighbours[row], catalogue.weights[row], strict=True) if v]
        messages = [torch.relu(convolve.message(state(v, layer - 1))) for v, _ in near]
        pooled = torch.zeros(model.config.hidden)
        if near and model.config.pooling == "importance":
            pooled = sum(w * m for (_, w), m in zip(near, messages, strict=True))
        elif near and model.config.pooling == "mean":
            pooled = torch.stack(messages).mean(0)
        elif near:
            pooled = torch.stack(messages).amax(0)
        own = state(row, layer - 1)
        both = (convolve.own(own) + pooled) / 2 if model.config.combine == "average" else torch.cat([own, pooled])
        h = torch.relu(convolve.update(both))
        return unit(h)

    first, _, second = model.head
    z = second(torch.relu(first(state(item, model.config.layers))))
    if model.config.length == "popular":
        return torch.cat([unit(z[:-1]), torch.log1p(z[-1:].exp())])
    return unit(z) if model.config.length == "one" else z


def unit(z: torch.Tensor) -> torch.Tensor:
    return z / z.norm().clamp(min=1e-12)


CASES = {
    "paper": PAPER,
    "one layer": {"layers": 1},
    "mean": {"pooling": "mean"},
    "max": {"pooling": "max"},
    "average": {"combine": "average"},
    "three layers": {"layers": 3},
    "one layer, cosine": {"layers": 1, "length": "one"},
    "with popularity": {"length": "popular"},
    "with ids": {"id_dim": 4},
    "no categories": {"category_dim": 0},
}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20), items=st.integers(2, 30), top=st.integers(1, 6), data=st.data())
def test_minibatch_and_layer_wise_inference_equal_the_algorithm_item_by_item(case, seed, items, top, data):
    catalogue = random_catalogue(seed, items, top)
    model = make(catalogue, **CASES[case])
    wanted = np.array(data.draw(st.lists(st.integers(1, items - 1), min_size=1, max_size=6)), np.int32)
    slow = torch.stack([item_by_item(model, catalogue, int(row)) for row in wanted])
    graph, nodes = SubgraphBuilder(catalogue, model.config.layers).build(wanted)
    with torch.no_grad():
        minibatch = model(graph)[torch.from_numpy(nodes).long()]
    layer_wise = embed(model, catalogue, size=data.draw(st.integers(1, items)))
    torch.testing.assert_close(minibatch, slow, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.from_numpy(layer_wise[wanted]), slow, atol=1e-5, rtol=1e-5)
    assert not layer_wise[0].any()


def test_a_subgraph_holds_what_its_roots_need_and_nothing_else():
    catalogue = random_catalogue(3, 200, 3)
    graph, nodes = SubgraphBuilder(catalogue, 2).build(np.array([7, 9, 7], np.int32))
    needed = {0, 7, 9}
    for _ in range(2):
        needed |= set(catalogue.neighbours[sorted(needed)].ravel())
    assert set(graph.row_V.tolist()) == needed
    assert graph.row_V[nodes].tolist() == [7, 9, 7]
    assert graph.receivers[-1] == 3
    assert graph.receivers[0] == len(graph.neighbour_UT) < len(needed)


def test_the_builder_keeps_nothing_of_an_earlier_batch():
    catalogue = random_catalogue(4, 60, 4)
    builder = SubgraphBuilder(catalogue, 2)
    first, _ = builder.build(np.array([5, 6], np.int32))
    builder.build(np.array([40, 41, 42], np.int32))
    again, _ = builder.build(np.array([5, 6], np.int32))
    assert torch.equal(first.row_V, again.row_V)
    assert torch.equal(first.neighbour_UT, again.neighbour_UT)


def test_an_item_without_boards_has_a_vector_that_depends_on_its_content():
    catalogue = random_catalogue(5, 20, 4)
    catalogue.neighbours[3], catalogue.weights[3], catalogue.degree[3] = 0, 0, 0
    model = make(catalogue)
    before = embed(model, catalogue)
    catalogue.content[3] += 1
    after = embed(model, catalogue)
    assert np.isfinite(before[3]).all()
    assert before[3].any()
    assert not np.allclose(before[3], after[3])


def test_shards_that_a_crash_left_behind_are_not_computed_again():
    catalogue = random_catalogue(6, 50, 4)
    model = make(catalogue)

    class Counting(MemoryShards):
        written = 0

        def put(self, name, array):
            Counting.written += 1
            super().put(name, array)

    run = Inference(model, catalogue, Counting(), size=15)
    for phase in run.phases[:3]:
        for shard in range(run.count):
            run.work(phase, shard)
    assert Counting.written == 12
    for phase in run.phases:
        for shard in range(run.count):
            run.work(phase, shard)
    assert Counting.written == 16
    np.testing.assert_allclose(np.concatenate(list(run.vectors())), embed(model, catalogue), atol=1e-6)


def test_categories_reach_every_row_of_a_table_of_even_size():
    """Their hashes are odd: as they were, they reached half of it."""
    model = make(random_catalogue(0, 5, 2), category_rows=50, hidden=4)
    hashes = torch.tensor([[id_hash(f"category {n}")] * 2 for n in range(1000)], dtype=torch.int32)
    described = model.describe(torch.zeros(1000, 5), hashes, torch.zeros(1000, dtype=torch.int32))
    described.sum().backward()
    assert model.category is not None
    assert bool(model.category.weight.grad.any(dim=1).all())


def test_an_artifact_with_categories_in_other_rows_is_refused(tmp_path):
    save_pinsage(tmp_path, make(random_catalogue(0, 5, 2)), vectors="v", feature_service="f")
    load_pinsage(tmp_path)
    said = json.loads((tmp_path / "artifact.json").read_text())
    assert said.pop("format") == 2
    (tmp_path / "artifact.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match="format 1, this version reads format 2"):
        load_pinsage(tmp_path)


@pytest.mark.parametrize(
    ("length", "compact", "kept"), [("popular", 4, 4), ("popular", 8, 5), ("one", 4, 4), ("one", 8, 6), ("free", 4, 4)]
)
def test_trained_short_vectors_are_the_first_numbers_and_never_popularity(length, compact, kept):
    catalogue = random_catalogue(0, 12, 3)
    model = make(catalogue, length=length, compact=compact, compact_by="trained")
    full = torch.from_numpy(embed(model, catalogue))
    short = model.compact(full)
    assert short.shape == (12, compact)
    expected = torch.nn.functional.normalize(full[:, :kept], dim=1)
    torch.testing.assert_close(short[:, :kept], expected)
    assert not short[:, kept:].any()
    assert not short[0].any()
