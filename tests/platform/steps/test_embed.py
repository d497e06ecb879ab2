"""`embed`: the features again, with vectors of PinSage where the content vectors were."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from components.errors import UserError
from components.history.items import ItemTable
from components.models.pinsage.artifact import load_pinsage
from components.models.pinsage.catalogue import Catalogue
from components.models.pinsage.subgraph import SubgraphBuilder
from components.recipe import load_recipe
from pinloom.features import buckets
from pinloom.graph.embedding import EmbedJob, LakeShards
from pinloom.lake import Manifest
from pinloom.steps import embed, neighbourhoods
from pinloom.steps.base import load_step, run_step
from pinloom.training.curves import write_curves
from pinloom.training.job import LakeTables, RecipeJob
from pinloom.training.local import run_local
from tests.platform.features import small
from tests.platform.graph import shelves

SMALL = {"neighbours": 5, "batch": 32, "negatives": 20, "steps_per_epoch": 3, "epochs": 1}


class Place:
    """A lake with features, graph, neighbourhoods and a PinSage that was trained on them."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.lake, self.settings = small.local(folder)
        self.spec = shelves.spec({"pairs": {"window_hours": 48}})
        shelves.publish(self.lake, self.spec, shelves.boards())
        self.features = self.step("features")
        self.graph = self.step("graph")
        self.near = self.step("neighbourhoods", top=5, walks=16, length=4, band_size=4)
        self.train = self.trained("pinsage", self.features, SMALL, (self.graph, self.near))

    def step(self, name, **params) -> Manifest:
        return small.run(self.lake, self.settings, self.spec, name, **params)

    def trained(self, recipe, features, overrides, extras=()) -> Manifest:
        """What the step `train` publishes, without Ray."""
        job = RecipeJob(
            load_recipe(recipe), self.spec.contract, features, self.lake.root, "debug", overrides, extras=extras
        )
        key = f"{recipe}-{features.key}"
        folder = self.folder / key
        run = run_local(job(), folder)
        writer = self.lake.writer("train", key, "artifact", "0")
        for file in sorted((folder / "checkpoint" / "artifact").iterdir()):
            writer.upload(file)
        curves = self.lake.writer("train", key, "curves", "0")
        for file in write_curves(run.curve, self.folder):
            curves.upload(file)
        outputs = {"artifact": writer.output(), "curves": curves.output()}
        manifest = features.model_copy(update={"step": "train", "key": key, "outputs": outputs})
        published = self.lake.publish(manifest)
        return self.lake.advance(f"champions/{recipe}", lambda _: published)

    def embed(self, **given) -> Manifest:
        return run_step(
            embed.STEP,
            lake=self.lake,
            settings=self.settings,
            spec=self.spec,
            params={"shard_items": 9},
            inputs=given,
        )

    def items(self, manifest) -> ItemTable:
        return ItemTable.load({u.rsplit("/", 1)[-1]: self.lake.local_path(u) for u in manifest.output("items").uris})

    def array(self, manifest, name) -> np.ndarray:
        return np.load(self.lake.local_path(manifest.file("vectors", name)))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return Place(tmp_path_factory.mktemp("embed"))


@pytest.fixture(scope="module")
def embedded(place) -> Manifest:
    return place.embed()


def test_vectors_are_those_of_the_model_on_the_graph(place, embedded):
    tables = LakeTables(place.lake.root, place.features, place.graph, place.near)
    model = load_pinsage(place.lake.local_path(place.train.file("artifact", "artifact.json")).parent)
    catalogue = Catalogue.load(tables.__getitem__).nearest(5)
    rows = np.arange(1, len(catalogue), dtype=np.int32)
    graph, nodes = SubgraphBuilder(catalogue, 2).build(rows)
    with torch.no_grad():
        expected = model(graph)[torch.from_numpy(nodes).long()]
        short = model.compact(expected).numpy()
    full, whole, scale = (place.array(embedded, f"{n}.npy") for n in ("vectors", "int8", "scale"))
    largest = np.abs(expected.numpy()).max()
    np.testing.assert_allclose(full[1:], expected.numpy(), atol=2e-3 * largest)
    np.testing.assert_allclose(whole[1:] * scale[1:, None], expected.numpy(), atol=largest / 200)
    np.testing.assert_allclose(place.items(embedded).vectors[1:], short, atol=2e-3)
    whole, scale = (place.array(embedded, f"short_{n}.npy") for n in ("int8", "scale"))
    np.testing.assert_allclose(whole[1:] * scale[1:, None], short, atol=1 / 200)
    assert not full[0].any()
    assert not place.items(embedded).vectors[0].any()


def test_everything_else_is_the_features_own(place, embedded):
    ours, theirs = place.items(embedded), place.items(place.features)
    assert ours.ids.equals(theirs.ids)
    assert not np.array_equal(ours.vectors, theirs.vectors)
    for output in ("examples", "histories", "user_stats", "schema"):
        assert embedded.output(output) == place.features.output(output)
    frame = small.read(place.lake, embedded, "item_features")
    np.testing.assert_allclose(frame["vector"].list.to_array(32).to_numpy(), ours.vectors[1:], atol=1e-6)
    assert frame.drop("vector").equals(small.read(place.lake, place.features, "item_features").drop("vector"))


def test_the_vectors_are_named_by_the_model_not_by_the_content_encoder(place, embedded):
    assert embedded.metrics["vectors"].startswith("pinsage-")
    assert embedded.metrics["content_vectors"] == place.features.metrics["vectors"]
    assert "encoder" not in embedded.outputs
    assert place.lake.latest("embedded").uri == embedded.uri
    assert place.lake.latest("features").uri == place.features.uri


def test_a_ranker_trains_on_the_embedded_features_unchanged(place, embedded):
    train = place.trained("transact", embedded, {"epochs": 1})
    said = place.lake.read_bytes(train.file("artifact", "artifact.json")).decode()
    assert embedded.metrics["vectors"] in said


def test_a_rankers_report_compares_it_with_itself_on_the_content_vectors(place, embedded):
    """Before and after, on the same rows; a ranker on content vectors has no such row."""
    after, before = (evaluated(place, f, f, ablations=["content vectors"]).metrics for f in (embedded, place.features))
    assert before["ablation_lift"] == {}
    for metric, (own, *_) in before["headline"]["transact"].items():
        value = after["ablations"]["content vectors"][metric][0]
        assert value == pytest.approx(own, abs=1e-5)
        gain = after["headline"]["transact"][metric][0] - value
        assert after["ablation_lift"]["content vectors"][metric][0] == pytest.approx(gain, abs=2e-6)


def ranker(place, features) -> Manifest:
    """TransAct's run on these features; the first that was made stands."""
    if place.lake.exists(place.lake.manifest_uri("train", features.key)):
        return place.lake.manifest(place.lake.manifest_uri("train", features.key))
    train = place.trained("transact", features, {"epochs": 1})
    read = {"features": {"uri": features.uri, "sha256": features.content_hash()}}
    said = {"recipe": "transact", "flavour": "debug", "overrides": {"epochs": 1}, "workers": 1}
    return place.lake.publish(train.model_copy(update={"inputs": read, "params": said, "key": features.key}))


def evaluated(place, trained_on, asked_on, **params) -> Manifest:
    return run_step(
        load_step("evaluate"),
        lake=place.lake,
        settings=place.settings,
        spec=place.spec,
        params={"ablation": False, "full_requests": 0, "resamples": 20, **params},
        inputs={"train": ranker(place, trained_on), "features": asked_on},
    )


@pytest.fixture(scope="module")
def knowing(place, embedded) -> Iterator[Manifest]:
    """Embedded on a graph that has the boards of all splits."""
    graph = place.step("graph", until="features")
    yield place.embed(graph=graph, neighbourhoods=place.step("neighbourhoods", top=5, walks=16, length=4, band_size=4))
    place.step("graph")
    place.step("neighbourhoods", top=5, walks=16, length=4, band_size=4)


@pytest.mark.parametrize(
    ("trained_on", "asked_on", "says"),
    [
        ("content", "content", ""),
        ("embedded", "embedded", "before"),
        ("embedded", "content", "before"),
        ("content", "knowing", ""),
        ("knowing", "knowing", "some of this split"),
        ("knowing", "content", "some of this split"),
    ],
)
def test_a_report_says_which_boards_the_vectors_that_are_read_know(
    place, embedded, knowing, trained_on, asked_on, says
):
    those = {"content": place.features, "embedded": embedded, "knowing": knowing}
    found = evaluated(place, those[trained_on], those[asked_on])
    text = place.lake.read_bytes(found.file("report", "report.html")).decode()
    assert ("Boards behind item vectors" in text) == bool(says)
    assert ("some of this split" in text) == (says == "some of this split")


def test_a_ranker_whose_vectors_know_the_splits_boards_is_not_promoted(place, knowing):
    judged = evaluated(place, knowing, knowing)
    with pytest.raises(UserError, match=r"(?s)know boards up to .* until=splits"):
        run_step(
            load_step("promote"),
            lake=place.lake,
            settings=place.settings,
            spec=place.spec,
            params={"recipe": "transact"},
            inputs={"evaluate": judged},
        )


def test_nothing_is_left_of_what_lay_between_the_layers(place, embedded):
    assert not [p for p in place.lake.fs.find(place.lake.path("data", "embed")) if "-shards" in p]


def test_what_travels_to_a_task_does_not_hold_the_catalogue(place):
    job = EmbedJob(
        place.lake.root, place.features.uri, place.graph.uri, place.near.uri, place.train.uri, "memory://x", 9
    )
    assert len(job.inference.catalogue) == 41
    assert len(pickle.dumps(job)) < 2000


def test_after_a_crash_only_what_is_missing_is_embedded(place, monkeypatch):
    fresh = place.step("neighbourhoods", top=5, walks=16, length=4, band_size=4, seed=1)
    written, put = [], LakeShards.put

    def dies(self, name, array):
        if len(written) == 12:
            raise OSError("the machine went away")
        written.append(name)
        put(self, name, array)

    monkeypatch.setattr(LakeShards, "put", dies)
    with pytest.raises(OSError, match="went away"):
        place.embed(neighbourhoods=fresh)
    again = []
    monkeypatch.setattr(LakeShards, "put", lambda self, name, array: (again.append(name), put(self, name, array)))
    place.embed(neighbourhoods=fresh)
    assert len(set(written)) == 12
    assert len(set(written) | set(again)) == len(written) + len(again) == 20  # 5 shards, 2 layers, 2 phases


@pytest.mark.cluster
def test_ray_tasks_walk_and_embed_what_one_process_does(place, embedded, ray_cluster, tmp_path, monkeypatch):
    alone = place.near, embedded
    asked, on_ray = [], buckets._on_ray
    monkeypatch.setattr(buckets, "RAY_ROWS", 1)
    monkeypatch.setattr(buckets, "_on_ray", lambda work, *a: (asked.append(work.__name__), on_ray(work, *a))[1])
    monkeypatch.setattr(neighbourhoods, "SHARD", 9)
    shared = Place(tmp_path)
    near, made = shared.near, shared.embed()
    for output in ("neighbourhoods", "band"):
        assert {f.sha256 for f in alone[0].output(output).files} == {f.sha256 for f in near.output(output).files}
    # To the bit only with as many threads as a task has.
    one, many = (
        np.load(lake.local_path(m.file("vectors", "vectors.npy")))
        for lake, m in zip((place.lake, shared.lake), (alone[1], made), strict=True)
    )
    np.testing.assert_allclose(many, one, atol=1e-5)
    assert asked.count("walk_shard") == 1
    assert asked.count("embed_shard") == 4  # 2 layers, 2 phases


def test_features_with_other_content_vectors_are_refused(place):
    metrics = {**place.features.metrics, "vectors": "other-encoder"}
    other = place.features.model_copy(update={"key": "other", "params": {"seed": 9}, "metrics": metrics})
    with pytest.raises(UserError, match="other-encoder"):
        place.embed(features=place.lake.publish(other))


def test_until_one_is_promoted_the_content_vectors_stand_for_its_own(tmp_path):
    lake, settings = small.local(tmp_path)
    spec = shelves.spec({"pairs": {"window_hours": 48}})
    shelves.publish(lake, spec, shelves.boards())
    features = small.run(lake, settings, spec, "features")
    for step in ("graph", "neighbourhoods"):
        small.run(lake, settings, spec, step)
    handed_on = small.run(lake, settings, spec, "embed")
    assert handed_on.metrics["vectors"] == features.metrics["vectors"]
    assert {n: o for n, o in handed_on.outputs.items() if n != "vectors"} == features.outputs
    table = ItemTable.load({u.rsplit("/", 1)[-1]: lake.local_path(u) for u in features.output("items").uris})
    np.testing.assert_array_equal(np.load(lake.local_path(handed_on.file("vectors", "vectors.npy"))), table.vectors)
