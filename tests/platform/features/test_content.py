"""Content vectors: alike items are near, the same input gives the same bytes, wrong columns are named."""

import numpy as np
import polars as pl
import pytest

from components.errors import UserError
from pinloom.datasets.spec import FeatureSpec
from pinloom.features.content import DIM, content_vectors

SPEC = FeatureSpec(categorical=("kind",), numeric=("weight",), text=("title",), vectors=("look",))


def _items(n: int = 200) -> pl.DataFrame:
    kinds = ["shoe", "lamp", "book", None]
    return pl.DataFrame(
        {
            "item_id": [str(i) for i in range(n)],
            "title": [f"{kinds[i % 4] or 'odd'} number{i % 11} colour{i % 5}" for i in range(n)],
            "features.kind": [kinds[i % 4] for i in range(n)],
            "features.weight": [None if i % 9 == 0 else float(i % 4) for i in range(n)],
            "features.look": [None if i % 7 == 0 else [float(i % 4), 1.0] for i in range(n)],
        }
    )


def test_rows_have_length_one_and_alike_items_are_nearer_than_others():
    vectors = content_vectors(_items(), SPEC).astype(np.float32)
    assert vectors.shape == (200, DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    near = vectors @ vectors.T
    same = np.arange(200)[:, None] % 4 == np.arange(200)[None] % 4
    assert near[same].mean() > near[~same].mean() + 0.3


def test_the_same_items_give_the_same_bytes():
    assert content_vectors(_items(), SPEC).tobytes() == content_vectors(_items(), SPEC).tobytes()


def test_an_item_of_which_nothing_is_known_is_zero():
    items = pl.concat([_items(50), pl.DataFrame({"item_id": ["blank"]})], how="diagonal")
    spec = FeatureSpec(categorical=("kind",), text=("title",))
    assert not content_vectors(items, spec)[-1].any()


def test_nothing_declared_is_all_zero():
    assert not content_vectors(_items(), FeatureSpec()).any()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_items_suffices(n):
    assert content_vectors(_items(n), SPEC).shape == (n, DIM)


def test_vectors_of_different_lengths_are_refused():
    items = _items(3).with_columns(pl.Series("features.look", [[1.0], [1.0, 2.0], None]))
    with pytest.raises(UserError, match="'look' have different lengths"):
        content_vectors(items, SPEC)
