"""Related items: the nearest by the embedded vectors, in the terms of the snapshot that is served."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from components.history.items import ItemTable
from components.models.pinsage.catalogue import Catalogue
from components.models.pinsage.inference import embed
from components.retrieval import VectorIndex
from pinloom.serving.gateway import create_app
from pinloom.serving.related import RelatedItems
from pinloom.serving.service import RankingService
from tests.platform.serving import planted
from tests.platform.serving.asking import AT, recommend


@pytest.fixture(scope="module")
def service(world, index, tmp_path_factory) -> RankingService:
    home = tmp_path_factory.mktemp("related")
    fresh = replace(world, settings=world.settings.model_copy(update={"home": home}))
    fresh.step("materialize", features=world.features)
    return RankingService.load(fresh.args(index=index.uri))


@pytest.fixture(scope="module")
def client(service):
    with TestClient(create_app(service, None)) as client:
        yield client


def post(client, **body):
    return client.post("/v1/items/related", json=body)


def ids(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["related"]]


def by_product(service, *items: str) -> list[str]:
    """Slow twin: every item by the inner product with the mean of some, best first."""
    related = service.loaded.related
    query = related.of_rows(service.items.rows(list(items))).mean(axis=0)
    products = related.of_rows(np.arange(1, len(service.items), dtype=np.int32)) @ query
    return service.items.ids[1:].gather(np.argsort(-products, kind="stable").tolist()).to_list()


def nearest(service, *items: str) -> list[str]:
    return [i for i in by_product(service, *items) if i not in items]


def test_one_items_neighbours_are_those_of_a_comparison_with_every_item(client, service):
    answer = client.get("/v1/items/wool-3/related?k=7")
    assert ids(answer) == nearest(service, "wool-3")[:7]
    scores = [item["score"] for item in answer.json()["related"]]
    assert scores == sorted(scores, reverse=True)
    assert answer.json()["vectors"] == service.loaded.related.version
    assert all(item["title"] == item["item_id"].replace("-", " number ") for item in answer.json()["related"])


def test_rounding_makes_no_cosine_of_more_than_one(service):
    """A mean of vectors of length 1 is no longer than they; in half precision each may be."""
    related = service.loaded.related
    rng = np.random.default_rng(0)
    whole = rng.normal(size=related.vectors.shape)
    unit = (whole / np.linalg.norm(whole, axis=1, keepdims=True)).astype(np.float16)
    for vectors, bounded in ((unit, True), (2 * unit, False)):
        index = VectorIndex.build([vectors.astype(np.float32)], len(vectors))
        other = replace(related, vectors=vectors, index=index, served=np.arange(len(vectors), dtype=np.int32))
        queries = vectors[1:].astype(np.float32)
        best = [float(other.nearest(q[None], 3)[1][0]) for q in queries]
        exact = (queries**2).sum(1)
        assert exact.max() > 1.0001
        np.testing.assert_allclose(best, np.minimum(exact, 1) if bounded else exact, rtol=1e-5)


def test_several_items_are_asked_about_by_their_mean(client, service):
    assert (
        ids(post(client, items=["wool-3", "silk-1", "silk-2"], k=9))
        == nearest(service, "wool-3", "silk-1", "silk-2")[:9]
    )


def test_what_is_saved_together_is_related(client):
    """Everybody buys from one category alone: its items share users."""
    found = [i for n in range(5) for i in ids(client.get(f"/v1/items/silk-{n}/related?k=5"))]
    assert np.mean([i.startswith("silk") for i in found]) > 0.8


def test_categories_and_exclusions_let_nothing_else_through(client):
    felt = ids(client.get("/v1/items/wool-3/related?k=20&category=felt"))
    assert len(felt) == planted.ITEMS_PER_CATEGORY
    assert all(i.startswith("felt") for i in felt)
    both = ids(post(client, items=["wool-3"], k=50, categories=["felt", "silk"], exclude=["felt-1", "silk-2"]))
    assert {i.split("-")[0] for i in both} == {"felt", "silk"}
    assert not {"felt-1", "silk-2"} & set(both)


def test_an_item_that_nobody_has_seen_is_placed_by_its_features(client, service, world):
    """As the model places an item of the same features that is on no board."""
    row = service.items.rows(["linen-3"])
    items = ItemTable.load(
        {u.rsplit("/", 1)[-1]: world.lake.local_path(u) for u in world.features.output("items").uris}
    )
    alone = np.zeros((2, 1), np.int32)
    # Spelt out: the twin of `Catalogue.without_boards`.
    twin = Catalogue(
        content=np.pad(items.vectors[row].astype(np.float32), ((1, 0), (0, 1))),
        category=np.pad(items.categorical[row], ((1, 0), (0, 0))),
        neighbours=alone,
        weights=alone.astype(np.float32),
        degree=np.zeros(2, np.int64),
        band=alone,
    )
    related = service.loaded.related
    query = embed(related.newcomers.model, twin)[1:]
    expected, _ = related.nearest(query, 10)
    found = ids(post(client, item={"title": "linen number 3", "category": "linen"}, k=10))
    assert found == service.items.ids.gather(expected.tolist()).to_list()
    assert found != ids(post(client, item={"title": "felt number 3", "category": "felt"}, k=10))


@pytest.mark.parametrize(
    ("body", "problem", "remedy"),
    [
        ({"items": ["nylon-1"]}, "item 'nylon-1' is not in the served catalogue", "send it as `item`"),
        ({}, "ask about `items` or about one new `item`", "exactly one"),
        ({"items": ["wool-1"], "item": {"title": "x"}}, "ask about `items` or about one new `item`", "exactly one"),
        ({"item": {"features": {"colour": "red"}}}, "items have no feature 'colour'", "category, title"),
    ],
)
def test_a_mistake_is_answered_with_what_was_expected(client, body, problem, remedy):
    answer = post(client, **body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert problem in error["problem"]
    assert remedy in error["remedy"]


def test_without_an_index_the_caller_is_told_how_to_get_one(world, tmp_path):
    fresh = replace(world, settings=world.settings.model_copy(update={"home": tmp_path}))
    fresh.step("materialize", features=world.features)
    with TestClient(create_app(RankingService.load(fresh.args()), None)) as client:
        answer = client.get("/v1/items/wool-3/related")
    assert answer.status_code == 422
    assert "pinloom step embed index" in answer.json()["errors"][0]["remedy"]


def test_neighbours_of_recent_positives_are_candidates(client):
    ranking = recommend(client, k=20, at=AT)
    assert {r["source"] for r in ranking["ranked"]} == {"popularity", "pinsage"}


def test_an_index_older_than_the_snapshot_speaks_of_the_items_both_have(world, index, service):
    """Rows move from snapshot to snapshot: an item inserted before all others moves every one of them."""
    ids = pl.Series(["", "aaa-new", *service.items.ids[1:].to_list()[:-1]])
    moved = replace(
        service.items,
        keys=np.concatenate([[-1, 5], service.items.keys[1:-1]]),
        labels=pl.DataFrame({"row": range(len(ids)), "item_id": ids, "category": None}).cast({"category": pl.String}),
    )
    related = RelatedItems.load(world.lake, index, moved, service.schema)
    rows, _ = related.nearest(related.of_rows(moved.rows(["wool-3"])), 8)
    gone = service.items.ids[-1]
    assert moved.ids.gather(rows.tolist()).to_list() == [i for i in by_product(service, "wool-3") if i != gone][:8]
    assert not related.of_rows(np.array([1], np.int32)).any()
