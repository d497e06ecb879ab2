"""Runs and versions are found again by key: a restart or a retry adds nothing."""

from datetime import UTC, datetime

import pytest

from components.errors import UserError
from pinloom.lake import Manifest
from pinloom.ports import free_port
from pinloom.registry import Registry
from pinloom.settings import Settings


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return Registry(Settings(home=tmp_path_factory.mktemp("home"), mlflow_uri=None), "shop")


def _manifest(key: str) -> Manifest:
    return Manifest(step="train", version=1, key=key, uri=f"file:///lake/{key}.json", created_at=datetime.now(UTC))


def test_a_manifest_becomes_one_version_however_often_it_is_registered(registry):
    first, second = (registry.register("one", _manifest("a")) for _ in range(2))
    assert first == second == "1"
    assert registry.register("one", _manifest("b")) == "2"
    assert [v.key for v in registry.versions("one")] == ["a", "b"]
    assert registry.version_of("one", _manifest("b")) == "2"
    assert registry.version_of("one", _manifest("never")) is None


def test_an_alias_names_the_manifest_and_keeps_the_reason(registry):
    version = registry.register("two", _manifest("c"))
    assert registry.alias("two", "champion") is None
    registry.move_alias("two", "champion", version, "first of its kind")
    assert registry.alias("two", "champion") == (version, "file:///lake/c.json")
    assert registry.reason("two", "champion", version) == "first of its kind"


def test_an_alias_of_a_model_that_never_was_is_none(registry):
    assert registry.alias("nobody", "champion") is None


def test_an_unknown_version_is_answered_with_those_that_exist(registry):
    registry.register("three", _manifest("d"))
    with pytest.raises(UserError, match="no version 9") as e:
        registry.manifest_uri("three", "9")
    assert "1" in e.value.remedy
    assert registry.manifest_uri("three", "1") == "file:///lake/d.json"


def test_a_run_is_found_again_by_its_key(registry):
    made = registry.ensure_run("k", "train-one", {"recipe": "one"}, {"lr": 0.1})
    registry.client.set_terminated(made, "FAILED")
    assert registry.ensure_run("k", "train-one", {"recipe": "one"}, {"lr": 0.1}) == made
    run = registry.client.get_run(made)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"lr": "0.1"}
    assert len(registry.client.search_runs([registry.experiment_id])) == 1


def test_a_version_links_to_the_run_of_its_key(registry):
    run = registry.ensure_run("e", "train-four", {}, {})
    registry.register("four", _manifest("e"))
    assert registry.versions("four")[0].run_id == run


def test_the_manifests_that_any_alias_names_are_listed_once(registry):
    named = [registry.register("three", _manifest(key)) for key in ("d", "e", "f")]
    registry.move_alias("three", "champion", named[0], "good")
    registry.move_alias("three", "challenger", named[0], "still good")
    registry.move_alias("three", "canary", named[2], "new")
    listed = registry.aliased()
    assert sorted(u for u in listed if u[-6] in "def") == ["file:///lake/d.json", "file:///lake/f.json"]


def test_a_server_that_does_not_answer_is_the_users_mistake_at_once(tmp_path):
    dead = Registry(Settings(home=tmp_path, mlflow_uri=f"http://127.0.0.1:{free_port()}"), "shop")
    with pytest.raises(UserError, match="no MLflow server answers"):
        dead.versions("one")
