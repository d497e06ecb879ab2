"""The commit looks at the store: an emptied or outdated one is filled again."""

import shutil

import pytest

from pinloom.features.online import OnlineFeatures
from tests.platform.features import small


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    lake, settings = small.local(tmp_path_factory.mktemp("materialize"))
    spec = small.spec()
    small.publish(lake, small.actions(), spec)
    features = small.run(lake, settings, spec, "features")
    return lake, settings, spec, features


def test_it_fills_an_emptied_store_again_though_the_manifest_exists(world):
    lake, settings, spec, _ = world
    first = small.run(lake, settings, spec, "materialize")
    before = OnlineFeatures(settings, first).history(small.USERS[0]).event.tolist()
    assert len(before) > 10
    shutil.rmtree(settings.home / "online")
    again = small.run(lake, settings, spec, "materialize")
    assert again == first
    assert OnlineFeatures(settings, again).history(small.USERS[0]).event.tolist() == before


def test_a_full_store_is_left_alone(world, monkeypatch):
    lake, settings, spec, _ = world
    small.run(lake, settings, spec, "materialize")
    monkeypatch.setattr("pinloom.features.fill.fill", lambda *_: pytest.fail("filled again"))
    small.run(lake, settings, spec, "materialize")


def test_the_snapshot_is_the_item_table_and_says_what_it_was_made_from(world):
    lake, settings, spec, features = world
    online = small.run(lake, settings, spec, "materialize")
    assert online.output("snapshot") == features.output("items")
    assert {k: online.metrics[k] for k in ("as_of", "service", "vectors")} == {
        k: features.metrics[k] for k in ("as_of", "service", "vectors")
    }
    assert online.metrics["users"] == len(small.USERS) - 1
    assert lake.require("online") == online


def test_two_data_sets_share_a_home_without_sharing_users(world):
    lake, settings, spec, features = world
    small.run(lake, settings, spec, "materialize")
    other = small.spec(name="another")
    elsewhere = small.run(lake, settings, other, "materialize")
    assert elsewhere.metrics["project"] == "another"
    files = {p.name for p in (settings.home / "online").glob("*.db")}
    assert files == {"small_log.db", "another.db"}
    assert features.metrics["service"] == "transact_ranking_v2"
