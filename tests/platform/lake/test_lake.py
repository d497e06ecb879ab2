"""The primitives, on every store: create if absent, publish, compare-and-swap."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import UserError
from pinloom.lake import Lake, PointerMoved
from tests.platform.lake.examples import published


def test_a_file_is_created_once_and_never_overwritten(lake):
    uri = lake.path("manifests", "step", "a.json")
    assert lake.create(uri, b"first")
    assert not lake.create(uri, b"second")
    assert lake.read_bytes(uri) == b"first"


def test_what_is_created_is_seen_by_another_client_at_once(lake):
    other = Lake(lake.root)
    assert other.latest("table") is None
    assert other.find("step", "k") is None
    manifest = published(lake, "step", "k", {"rows": {"": b"abc"}})
    lake.move("table", manifest.uri, 0)
    assert other.find("step", "k") == manifest
    assert other.latest("table") == manifest


def test_the_first_attempt_to_publish_a_key_stands(lake):
    first = published(lake, "step", "k", {"rows": {"": b"abc"}})
    second = published(lake, "step", "k", {"rows": {"": b"xyz"}})
    assert second == first
    assert lake.find("step", "k") == first


def test_a_pointer_moves_only_from_the_version_that_was_read(lake):
    a, b = (published(lake, "step", key) for key in "ab")
    assert lake.move("table", a.uri, 0) == 1
    with pytest.raises(PointerMoved):
        lake.move("table", b.uri, 0)
    assert lake.latest("table") == a
    assert lake.move("table", b.uri, 1) == 2
    assert lake.latest("table") == b


def test_advancing_decides_again_after_a_lost_race(lake):
    a, b, c = (published(lake, "step", key) for key in "abc")
    seen = []

    def decide(current):
        seen.append(current)
        if len(seen) == 1:
            lake.move("table", a.uri, 0)
        return b if current is None else c

    assert lake.advance("table", decide) == c
    assert seen == [None, a]
    assert lake.latest("table") == c


def test_advancing_to_what_is_named_already_adds_no_version(lake):
    a = published(lake, "step", "a")
    for _ in range(3):
        lake.advance("table", lambda _: a)
    assert lake.pointer_version("table") == 1


def test_a_pointer_below_another_is_a_pointer_of_its_own(lake):
    a, b = (published(lake, "step", key) for key in "ab")
    lake.advance("runs", lambda _: a)
    lake.advance("runs/transact", lambda _: b)
    assert lake.latest("runs") == a
    assert lake.latest("runs/transact") == b


def test_what_is_missing_or_no_manifest_is_named(lake):
    uri = lake.manifest_uri("step", "none")
    with pytest.raises(UserError, match="does not exist"):
        lake.manifest(uri)
    lake.create(uri, b"not json")
    with pytest.raises(UserError, match="is not a manifest"):
        lake.manifest(uri)
    with pytest.raises(UserError, match="nothing is published as 'actions'"):
        lake.require("actions")


def test_an_unknown_kind_of_store_is_answered_with_the_setting():
    with pytest.raises(UserError, match="no lake can be opened at ftpx") as e:
        Lake("ftpx://somewhere")
    assert "PINLOOM_LAKE" in e.value.remedy


def test_a_plain_path_is_a_local_lake(tmp_path):
    lake = Lake(f"{tmp_path}/lake")
    assert lake.root == f"file://{tmp_path}/lake"
    assert lake.create(lake.path("manifests", "s", "k.json"), b"{}")


def test_a_file_of_any_store_can_be_opened_as_a_local_path(lake):
    manifest = published(lake, "step", "k", {"rows": {"day": b"abc"}})
    (path,) = lake.local_paths(manifest.output("rows"))
    assert Path(path).read_bytes() == b"abc"


def test_an_output_of_any_store_can_be_opened_as_a_local_folder(lake):
    manifest = published(lake, "step", "k", {"artifact": {"said.json": b"{}", "weights": b"abc"}})
    folder = lake.local_folder(manifest.output("artifact"))
    assert {p.name.split(".")[0]: p.read_bytes() for p in folder.iterdir()} == {"said": b"{}", "weights": b"abc"}


@given(st.lists(st.sampled_from("abc"), max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pointer_names_what_it_was_moved_to_last_and_keeps_its_history(tmp_path_factory, moves):
    lake = Lake(f"file://{tmp_path_factory.mktemp('lake')}")
    manifests = {key: published(lake, "step", key) for key in "abc"}
    for key in moves:
        lake.advance("table", lambda _, key=key: manifests[key])
    changes = [k for k, before in zip(moves, [None, *moves], strict=False) if k != before]
    assert lake.pointer_version("table") == len(changes)
    named = [lake.read_bytes(lake.pointer_uri("table", n + 1)).decode() for n in range(len(changes))]
    assert named == [manifests[k].uri for k in changes]
