"""An artifact of another version is refused with what differs and the remedy, of whichever family."""

import json
from dataclasses import asdict, dataclass

import pytest
from safetensors.torch import load_file, save_file
from torch import nn

from components.errors import UserError
from components.models.artifact import FORMAT, describe_as, fill, save_artifact


@dataclass(frozen=True)
class Config:
    width: int = 3


@pytest.fixture
def folder(tmp_path):
    said = {"recipe": "line", "format": FORMAT, "config": asdict(Config()), "learned": [1, 2]}
    save_artifact(tmp_path, nn.Linear(3, 1), said)
    return tmp_path


def describe(folder):
    return describe_as(folder, "line", "Line", Config, needed=("learned",))


def test_one_of_this_version_opens(folder):
    assert describe(folder)["learned"] == [1, 2]
    model = nn.Linear(3, 1)
    fill(model, folder)
    assert model.weight.equal(load_file(folder / "model.safetensors")["weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": "curve"}, "holds no Line artifact"),
        ({"format": 1}, "has format 1, this version reads format 2"),
        ({"config": {"width": 3, "depth": 2}}, "config fields that this version does not know: depth"),
        ({"learned": None}, "does not say learned"),
    ],
)
def test_a_description_of_another_version_is_refused(folder, change, said):
    path = folder / "artifact.json"
    changed = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in changed.items() if v is not None}))
    with pytest.raises(UserError, match=said) as refused:
        describe(folder)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda w: {"weight": w["weight"]}, "bias"),
        (lambda w: {**w, "weight": w["weight"][:, 1:].contiguous()}, "weight"),
        (lambda w: {**w, "scale": w["bias"] + 1}, "scale"),
    ],
)
def test_weights_of_another_version_are_named(folder, change, name):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(UserError, match=f"do not fit its description: {name}") as refused:
        fill(nn.Linear(3, 1), folder)
    assert "train again" in refused.value.remedy
