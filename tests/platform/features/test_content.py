"""Content vectors: alike items are near; an encoder is a function of the item alone, read back as well."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UserError
from pinloom.datasets.spec import FeatureSpec
from pinloom.features.content import DIM, Encoder

SPEC = FeatureSpec(categorical=("kind",), numeric=("weight", "price"), text=("title",), vectors=("look",))


def _items(n: int = 200) -> pl.DataFrame:
    kinds = ["shoe", "lamp", "book", None]
    return pl.DataFrame(
        {
            "item_id": [str(i) for i in range(n)],
            "title": [f"{kinds[i % 4] or 'odd'} number{i % 11} colour{i % 5}" for i in range(n)],
            "features.kind": [kinds[i % 4] for i in range(n)],
            "features.weight": [None if i % 9 == 0 else float(i % 4) * 100 for i in range(n)],
            "features.price": [float(i * i % 17) for i in range(n)],
            "features.look": [None if i % 7 == 0 else [float(i % 4), 1.0] for i in range(n)],
        }
    )


def _vectors(items: pl.DataFrame, spec: FeatureSpec = SPEC) -> np.ndarray:
    return Encoder.fit(items, spec).encode(items)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.fit(_items(), SPEC)


def test_rows_have_length_one_and_alike_items_are_nearer_than_others():
    vectors = _vectors(_items()).astype(np.float32)
    assert vectors.shape == (200, DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    near = vectors @ vectors.T
    same = np.arange(200)[:, None] % 4 == np.arange(200)[None] % 4
    assert near[same].mean() > near[~same].mean() + 0.3


def test_the_same_items_give_the_same_encoder_and_the_same_bytes():
    one, two = Encoder.fit(_items(), SPEC), Encoder.fit(_items(), SPEC)
    assert one.version == two.version
    assert one.encode(_items()).tobytes() == two.encode(_items()).tobytes()


def test_other_items_or_another_declaration_give_another_version(encoder):
    assert Encoder.fit(_items(199), SPEC).version != encoder.version
    assert Encoder.fit(_items(), SPEC.model_copy(update={"categorical": ()})).version != encoder.version


_LETTERS = st.sampled_from("abc")
_ANY_ITEM = st.fixed_dictionaries(
    {
        "item_id": st.text(_LETTERS, min_size=1),
        "title": st.none() | st.text("abc lamp2", max_size=12),
        "features.kind": st.none() | st.sampled_from(["shoe", "lamp", "never seen"]),
        "features.weight": st.none() | st.floats(allow_nan=True, allow_infinity=False, width=32),
        "features.price": st.none() | st.floats(-1e6, 1e6),
        "features.look": st.none() | st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=2),
    }
)


@settings(max_examples=60, deadline=None)
@given(added=st.lists(_ANY_ITEM, max_size=20), seed=st.integers(0, 2**16))
def test_an_items_vector_depends_on_no_other_item_nor_on_the_order(encoder, added, seed):
    old = _items()
    new = pl.concat([old, pl.DataFrame(added, schema=old.schema)])
    order = np.random.default_rng(seed).permutation(new.height)
    found = np.empty((new.height, DIM), np.float16)
    found[order] = encoder.encode(new[order])
    assert found[: old.height].tobytes() == encoder.encode(old).tobytes()
    assert np.isfinite(found).all()


def test_a_new_item_is_near_the_known_ones_that_it_is_like(encoder):
    like = _items().filter(pl.col("features.kind") == "lamp")[:1].with_columns(item_id=pl.lit("new"))
    unknown = like.with_columns(title=pl.lit("lamp nobodysaidthis"), **{"features.look": pl.lit([1.0, 1.0])})
    near = encoder.encode(unknown).astype(np.float32) @ encoder.encode(_items()).astype(np.float32).T
    lamps = (_items()["features.kind"] == "lamp").fill_null(False).to_numpy()
    assert near[0, lamps].mean() > near[0, ~lamps].mean() + 0.3


def test_what_is_read_back_encodes_the_same_and_is_the_same_version(encoder):
    again = Encoder.from_files(encoder.files)
    assert again.version == encoder.version
    assert again.encode(_items()).tobytes() == encoder.encode(_items()).tobytes()
    assert again.fits(SPEC)
    assert not again.fits(SPEC.model_copy(update={"text": ()}))


def test_features_that_do_not_enter_the_vectors_do_not_matter(encoder):
    assert encoder.fits(SPEC.model_copy(update={"crosses": ("kind",), "sequence_length": 5}))


def test_another_format_is_not_read(encoder):
    said = json.loads(encoder.files["encoder.json"])
    other = {**encoder.files, "encoder.json": json.dumps({**said, "format": 0}).encode()}
    assert Encoder.from_files(other) is None


def test_an_item_of_which_nothing_is_known_is_zero():
    items = pl.concat([_items(50), pl.DataFrame({"item_id": ["blank"]})], how="diagonal")
    spec = FeatureSpec(categorical=("kind",), text=("title",))
    assert not _vectors(items, spec)[-1].any()


def test_nothing_declared_is_all_zero():
    assert not _vectors(_items(), FeatureSpec()).any()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_items_suffices(n):
    assert _vectors(_items(n)).shape == (n, DIM)


def test_an_empty_column_and_texts_without_a_word_are_no_obstacle():
    nothing = pl.lit(None, pl.String)
    items = _items(30).with_columns(title=pl.lit("-"), **{"features.kind": nothing})
    encoder = Encoder.fit(items, SPEC)
    assert encoder.encode(_items(30)).any(axis=1).sum() > 20
    assert Encoder.from_files(encoder.files).version == encoder.version


def test_vectors_of_different_lengths_are_refused(encoder):
    items = _items(3).with_columns(pl.Series("features.look", [[1.0], [1.0, 2.0], None]))
    with pytest.raises(UserError, match="'look' have different lengths"):
        Encoder.fit(items, SPEC)


def test_vectors_longer_than_those_fitted_on_are_refused_with_the_remedy(encoder):
    items = _items(3).with_columns(pl.Series("features.look", [[1.0, 2.0, 3.0], None, None]))
    with pytest.raises(UserError, match=r"have 3 numbers, those that the encoder was fitted on 2.*\n.*encoder=refit"):
        encoder.encode(items)
