"""`index`: what is indexed, and that its recall is measured against an exact search."""

import numpy as np
import pytest

from components.errors import UserError
from components.retrieval import VectorIndex


def opened(world, manifest) -> VectorIndex:
    return VectorIndex.load(
        {u.rsplit("/", 1)[-1]: str(world.lake.local_path(u)) for u in manifest.output("index").uris}
    )


def test_every_item_with_a_vector_is_indexed_and_an_exact_index_finds_all(world, index):
    assert index.metrics["kind"] == "Flat"
    assert index.metrics["recall@10"] == 1.0
    vectors = np.load(world.lake.local_path(index.file("index", "vectors.npy")))
    assert opened(world, index).rows.tolist() == np.flatnonzero(vectors.any(axis=1)).tolist()
    assert index.metrics["vectors"].startswith("pinsage-")
    assert world.lake.require("index").key == index.key


def test_an_approximate_index_says_what_it_finds(world, index):
    embedded = world.lake.manifest(index.inputs["embed"]["uri"])
    made = world.step("index", {"kind": "HNSW16,SQfp16", "k": 10, "recall": 0.9}, embed=embedded)
    assert made.metrics["recall@10"] >= 0.9
    assert opened(world, made).effort == made.metrics["effort"]


def test_vectors_of_no_item_are_refused(world, index, tmp_path):
    embedded = world.lake.manifest(index.inputs["embed"]["uri"])
    empty = world.lake.writer("embed", "empty", "vectors", "0")
    np.save(tmp_path / "vectors.npy", np.zeros((5, 4), np.float16))
    empty.upload(tmp_path / "vectors.npy")
    outputs = {**embedded.outputs, "vectors": empty.output()}
    nothing = world.lake.publish(embedded.model_copy(update={"key": "empty", "outputs": outputs}))
    with pytest.raises(UserError, match=r"no item of .* has a vector"):
        world.step("index", embed=nothing)
