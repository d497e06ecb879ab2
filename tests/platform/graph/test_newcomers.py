"""Vectors of an older embedding for the items of a newer snapshot."""

import numpy as np
import polars as pl

from components.history.items import ItemTable
from pinloom.evaluation.scoring import open_items, open_schema
from pinloom.graph.newcomers import Newcomers, embedded_as
from tests.platform.lake.examples import mirrored
from tests.platform.serving import planted


def test_known_items_keep_their_vectors_and_a_new_one_gets_that_of_its_features(world, index):
    embedded = world.lake.manifest(index.inputs["embed"]["uri"])
    twin = planted.items().filter(pl.col("item_id") == "silk-3").with_columns(item_id=pl.lit("aaa-new"))
    catalogue = pl.concat([planted.items(), twin])
    actions = planted.publish(world.lake, planted.actions(), catalogue, key="one-more")
    later = world.step("features", {"encoder": world.features.uri}, actions=actions)
    table = open_items(world.lake, later)

    vectors = embedded_as(world.lake, embedded, later, table)

    before: ItemTable = open_items(world.lake, embedded)
    known = table.rows(before.ids[1:])
    np.testing.assert_array_equal(vectors[known], before.vectors[1:])
    (new,) = table.rows(["aaa-new"])
    np.testing.assert_allclose(np.linalg.norm(vectors[new].astype(np.float32)), 1, atol=1e-2)
    assert not vectors[0].any()
    # Alone, without boards, it is not what its twin is.
    assert not np.array_equal(vectors[new], vectors[table.rows(["silk-3"])[0]])


def test_the_model_is_opened_from_any_store(world, index, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere, item = mirrored(world.lake), {"title": "silk number 3", "category": "silk"}
    uri = index.inputs["embed"]["uri"]
    here, there = (
        Newcomers.load(lake, manifest, open_schema(lake, manifest)).vector(item)
        for lake, manifest in (
            (world.lake, world.lake.manifest(uri)),
            (elsewhere, elsewhere.manifest(uri.replace(world.lake.root, elsewhere.root))),
        )
    )
    np.testing.assert_array_equal(here, there)
