"""The index finds what comparing every vector finds; filters leave nothing else through."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.retrieval import VectorIndex, choose
from components.retrieval.index import EXACT, GRAPH, INDEX, exact_nearest

APPROXIMATE = ("HNSW16,SQfp16", "IVF16,SQ8")


def catalogue(n: int, seed: int = 0, d: int = 16) -> np.ndarray:
    """Clustered vectors; row 0 and every tenth row have none."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(20, d))[rng.integers(20, size=n)] + rng.normal(size=(n, d)) * 0.7
    vectors[::10] = 0
    return vectors.astype(np.float32)


def pieces(vectors: np.ndarray, size: int = 70):
    return (vectors[i : i + size] for i in range(0, len(vectors), size))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(12, 300), k=st.integers(1, 40), seed=st.integers(0, 1000), size=st.integers(1, 90))
def test_the_exact_index_is_a_comparison_with_every_vector(n, k, seed, size):
    vectors = catalogue(n, seed)
    index = VectorIndex.build(pieces(vectors, size), n)
    present = np.flatnonzero(vectors.any(axis=1))
    found, products = index.search(vectors[1:6], k)
    np.testing.assert_array_equal(found, exact_nearest(vectors[present], present, vectors[1:6], k))
    np.testing.assert_allclose(products, np.take_along_axis(vectors[1:6] @ vectors.T, found, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["Flat", *APPROXIMATE])
def test_a_filter_lets_nothing_else_through(kind):
    vectors = catalogue(2000)
    index = VectorIndex.build(pieces(vectors), len(vectors), kind)
    allowed = index.rows % 3 == 1
    found, _ = index.search(vectors[1:9], 20, allowed)
    assert (found >= 0).mean() > 0.5
    assert (found[found >= 0] % 3 == 1).all()


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_approximate_index_is_tuned_to_the_recall_asked_for(kind):
    vectors = catalogue(4000)
    index = VectorIndex.build(pieces(vectors), len(vectors), kind)
    present = np.flatnonzero(vectors.any(axis=1))
    queries = vectors[present[:100]]
    exact = exact_nearest(vectors[present], present, queries, 10)
    tuned, recall = index.tuned(queries, exact, 10, goal=0.95)
    assert recall >= 0.95
    assert tuned.recall(queries, exact, 10) == recall


@pytest.mark.parametrize("kind", ["Flat", *APPROXIMATE])
def test_saved_and_loaded_it_answers_the_same(tmp_path, kind):
    vectors = catalogue(1500)
    index = VectorIndex.build(pieces(vectors), len(vectors), kind)
    index.save(tmp_path)
    loaded = VectorIndex.load({p.name: str(p) for p in tmp_path.iterdir()})
    np.testing.assert_array_equal(loaded.search(vectors[1:5], 7)[0], index.search(vectors[1:5], 7)[0])
    assert (tmp_path / INDEX).stat().st_size > 0


def test_rows_without_a_vector_are_never_found():
    vectors = catalogue(300)
    index = VectorIndex.build(pieces(vectors), len(vectors))
    found, _ = index.search(vectors[1:3], 300)
    assert len(index) == 270
    assert not set(np.flatnonzero(~vectors.any(axis=1))) & set(found.ravel())


def test_the_kind_follows_the_size():
    assert choose(EXACT) == "Flat"
    assert choose(EXACT + 1).startswith("HNSW")
    assert choose(GRAPH + 1).startswith("IVF")
