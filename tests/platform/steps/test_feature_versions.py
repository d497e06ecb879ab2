"""The version of item vectors: handed on from snapshot to snapshot, following the model that serves."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from components.errors import UserError
from components.history.items import ItemTable
from pinloom.datasets.spec import DatasetSpec
from pinloom.lake import Lake, Manifest
from tests.platform.features import small


class Shop:
    """A lake into which a day is published after the other."""

    def __init__(self, root) -> None:
        self.lake, self.settings = small.local(root)
        self.spec = small.spec()

    def day(self, day: int, catalogue: pl.DataFrame | None = None) -> Manifest:
        """The log until day `day`."""
        log = small.actions().filter(pl.col("timestamp").dt.day() <= day)
        return small.publish(self.lake, log, self.spec, catalogue)

    def features(self, spec: DatasetSpec | None = None, **params) -> Manifest:
        return small.run(self.lake, self.settings, spec or self.spec, "features", **params)

    def table(self, features: Manifest) -> ItemTable:
        return ItemTable.load({u.rsplit("/", 1)[-1]: self.lake.local_path(u) for u in features.output("items").uris})

    def crown(self, features: Manifest) -> None:
        """Let a run on these features be the one that serves."""
        inputs = {"features": {"uri": features.uri, "sha256": features.content_hash()}}
        train = Manifest(step="train", version=1, key=features.key, created_at=datetime.now(UTC), inputs=inputs)
        published = self.lake.publish(train)
        self.lake.advance("champions/transact", lambda _: published)

    def declaring(self, **features) -> DatasetSpec:
        return self.spec.model_copy(update={"features": self.spec.features.model_copy(update=features)})


@pytest.fixture
def shop(tmp_path) -> Shop:
    return Shop(tmp_path)


def test_items_that_arrive_get_vectors_of_the_same_version_and_those_there_were_keep_theirs(shop):
    shop.day(8)
    first = shop.features()
    shop.day(9, small.later_items())
    second = shop.features()
    assert second.uri != first.uri
    assert second.metrics["vectors"] == first.metrics["vectors"]
    assert second.output("encoder").files == first.output("encoder").files
    old, new = shop.table(first), shop.table(second)
    assert len(new) == len(old) + 3
    rows = new.rows(old.ids[1:])
    assert (rows != np.arange(1, len(old))).any(), "rows move, keys do not"
    assert np.asarray(new.vectors)[rows].tobytes() == np.asarray(old.vectors)[1:].tobytes()
    arrived = np.asarray(new.vectors)[new.rows(["a new item", "item-05-b", "z"])]
    np.testing.assert_allclose(np.linalg.norm(arrived.astype(np.float32), axis=1), 1, atol=2e-3)
    assert second.metrics["items_without_vector"] == 0


def test_running_it_again_on_the_same_actions_finds_what_there_is(shop):
    monday = shop.day(8)
    first = shop.features()
    assert shop.features().uri == first.uri
    shop.crown(first)
    assert shop.features().uri == first.uri
    shop.day(9)
    second = shop.features()
    assert second.params["encoder"] == first.uri
    assert shop.features().uri == second.uri
    # A retry that comes after the next day's run.
    shop.lake.advance("actions", lambda _: monday)
    assert shop.features().uri == first.uri


def test_other_parameters_on_the_same_actions_share_the_encoder(shop):
    shop.day(8)
    whole = shop.features()
    half = shop.features(sample=0.5)
    assert half.params["encoder"] == whole.uri
    assert half.metrics["vectors"] == whole.metrics["vectors"]
    assert shop.features().uri == whole.uri
    assert shop.features(sample=0.5).uri == half.uri


def test_a_changed_declaration_fits_anew_and_is_another_version(shop):
    shop.day(8)
    first = shop.features()
    changed = shop.features(shop.declaring(text=()))
    assert changed.params["encoder"] == ""
    assert changed.metrics["vectors"] != first.metrics["vectors"]
    with pytest.raises(UserError, match="made for another `features` declaration"):
        shop.features(shop.declaring(text=()), encoder=first.uri)


def test_a_declaration_that_vectors_do_not_depend_on_changes_no_vector(shop):
    shop.day(8)
    first = shop.features()
    other = shop.features(shop.declaring(crosses=(), sequence_length=5))
    assert other.uri != first.uri
    assert other.metrics["vectors"] == first.metrics["vectors"]


def test_a_new_fit_is_followed_only_once_a_model_of_it_serves(shop):
    shop.day(8)
    first = shop.features()
    shop.crown(first)
    shop.day(9, small.later_items())
    anew = shop.features(encoder="refit")
    assert anew.metrics["vectors"] != first.metrics["vectors"]
    assert shop.features(encoder="refit").uri == anew.uri
    served = shop.features()
    assert served.metrics["vectors"] == first.metrics["vectors"]
    shop.crown(anew)
    assert shop.features().uri == anew.uri
    shop.day(10, small.later_items())
    assert shop.features().metrics["vectors"] == anew.metrics["vectors"]


def test_an_encoder_may_be_named(shop):
    shop.day(8)
    first = shop.features()
    shop.day(9, small.later_items())
    shop.features(encoder="refit")
    assert shop.features(encoder=first.uri).metrics["vectors"] == first.metrics["vectors"]
    with pytest.raises(UserError, match="does not exist"):
        shop.features(encoder=Lake.path(shop.lake, "manifests", "features", "nothing.json"))


def test_a_snapshot_of_which_no_encoder_is_left_is_no_obstacle(shop):
    shop.day(8)
    first = shop.features()
    older = first.model_copy(update={"outputs": {k: v for k, v in first.outputs.items() if k != "encoder"}})
    published = shop.lake.publish(older.model_copy(update={"key": "older"}))
    shop.lake.advance("features", lambda _: published)
    assert shop.features(seed=1).params["encoder"] == ""
