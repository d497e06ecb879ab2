"""A deployment whose parts do not fit together, or do not load, is refused with the reason."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from components.errors import UserError
from pinloom.lake import Manifest
from pinloom.serving.compatibility import check_compatible
from pinloom.serving.loading import Loaded
from pinloom.serving.service import RankingService
from tests.platform.serving import planted


def altered(world, tmp_path: Path, key: str, change) -> Manifest:
    """The champion with another `artifact.json` or `model.safetensors`."""
    for uri in world.champion.output("artifact").uris:
        name = uri.rsplit("/", 1)[-1]
        (tmp_path / name).write_bytes(change(name, world.lake.read_bytes(uri)))
    writer = world.lake.writer("train", key, "artifact", "0")
    writer.upload(tmp_path, name=".")
    return planted.advance(world.lake, f"test/{key}", "train", {"artifact": writer}, key=key)


def describing(**said):
    def change(name: str, content: bytes) -> bytes:
        if name != "artifact.json":
            return content
        old = json.loads(content)
        schema = {**old["schema"], **said.get("schema", {})}
        return json.dumps({**old, **said, "schema": schema}).encode()

    return change


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"feature_service": "older_v0"}, "feature service is 'transact_ranking_v2'.*trained with 'older_v0'"),
        ({"vectors": "other"}, "vector version is .*trained with 'other'"),
        ({"schema": {"actions": ["hide", "buy"]}}, "schema field 'actions'"),
    ],
)
def test_features_other_than_those_of_the_training_are_refused(world, tmp_path, said, complaint):
    champion = altered(world, tmp_path, f"wrong-{next(iter(said))}", describing(**said))
    with pytest.raises(UserError, match=complaint):
        check_compatible(world.lake, champion, world.online)
    with pytest.raises(UserError, match="do not fit"):
        Loaded.load(world.args(champion=champion.uri))


def test_a_snapshot_of_another_day_with_the_same_vectors_fits(world):
    later = world.step("materialize", features=world.complete)
    check_compatible(world.lake, world.champion, later)


def test_broken_weights_are_named(world, tmp_path):
    broken = altered(world, tmp_path, "broken", lambda name, c: c[:100] if name == "model.safetensors" else c)
    with pytest.raises(UserError, match=r"artifact of .*broken.json cannot be loaded"):
        Loaded.load(world.args(champion=broken.uri))


def not_a_number(name: str, content: bytes) -> bytes:
    if name != "model.safetensors":
        return content
    return save({k: torch.full_like(v, torch.nan) if v.is_floating_point() else v for k, v in load(content).items()})


def test_a_model_whose_scores_are_not_finite_never_takes_a_request(world, tmp_path):
    diverged = altered(world, tmp_path, "diverged", not_a_number)
    with pytest.raises(UserError, match=r"scores of .*diverged.json are not finite"):
        RankingService.load(world.args(champion=diverged.uri))


def test_arrays_of_the_snapshot_are_mapped_not_copied(service):
    assert all(not getattr(service.items, name).flags.owndata for name in ("vectors", "numeric", "categorical"))
    assert type(service.items.vectors.base).__name__ == "mmap"
