"""A trained model as files, of whichever family: `model.safetensors` and `artifact.json`. No pickle."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.errors import UserError

WEIGHTS, DESCRIPTION = "model.safetensors", "artifact.json"
FORMAT = 2
"""Which rows of hashed embedding tables ids have: of format 1 (unnamed), only every other one."""


class OtherVersion(UserError):
    """An artifact of another version of the code."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, "use the version that trained it, or train again")


def save_artifact(folder: Path, model: nn.Module, said: Mapping[str, Any], without: Collection[str] = ()) -> None:
    """Write the two files into `folder`.

    Args:
        said: the description, plain JSON.
        without: weights that have files of their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if k not in without}
    save_file(weights, str(folder / WEIGHTS))
    (folder / DESCRIPTION).write_text(json.dumps(said, indent=1))


def describe_artifact(folder: str | Path) -> dict[str, Any]:
    """What `artifact.json` says; empty where there is none."""
    path = Path(folder) / DESCRIPTION
    said: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return said


def load_weights(folder: str | Path) -> dict[str, Tensor]:
    """Weights by name, on the CPU.

    Raises:
        UserError: there are none.
    """
    path = Path(folder) / WEIGHTS
    if not path.exists():
        raise UserError(f"{folder} holds no {WEIGHTS}", "copy the whole folder of the artifact")
    weights: dict[str, Tensor] = load_file(str(path))
    return weights


def refuse_other_version(folder: str | Path, said: Mapping[str, Any], config_type: type) -> None:
    """
    Raises:
        UserError: the artifact is of another version of the code.
    """
    path = Path(folder) / DESCRIPTION
    if said.get("format", 1) != FORMAT:
        raise OtherVersion(f"{path} has format {said.get('format', 1)}, this version reads format {FORMAT}")
    if extra := sorted(_unknown(said["config"], config_type)):
        raise OtherVersion(f"{path} has config fields that this version does not know: {', '.join(extra)}")


def describe_as(
    folder: str | Path, recipe: str, called: str, config_type: type, needed: Collection[str] = ()
) -> dict[str, Any]:
    """What `artifact.json` of a recipe's model says.

    Args:
        called: the model, to people.
        needed: what it must say beside its configuration.

    Raises:
        UserError: the folder holds no such artifact, or one of another version of the code.
    """
    said = describe_artifact(folder)
    if said.get("recipe") != recipe:
        remedy = f"give the folder of a trained model of recipe '{recipe}'"
        raise UserError(f"{folder} holds no {called} artifact", remedy)
    refuse_other_version(folder, said, config_type)
    if missing := sorted(set(needed) - said.keys()):
        raise OtherVersion(f"{Path(folder) / DESCRIPTION} does not say {', '.join(missing)}")
    return said


def fill(model: nn.Module, folder: str | Path, without: Collection[str] = (), *, mapped: bool = False) -> None:
    """Give a model the weights of an artifact.

    Args:
        without: weights that have files of their own.
        mapped: leave them where safetensors maps them: processes of a machine share the pages.

    Raises:
        UserError: there are none, or they are of another version of the model.
    """
    found, own = load_weights(folder), {k: v for k, v in model.state_dict().items() if k not in without}
    if wrong := sorted(k for k in found.keys() | own.keys() if _shape(found, k) != _shape(own, k)):
        raise OtherVersion(f"the weights in {folder} do not fit its description: {', '.join(wrong[:5])}")
    model.load_state_dict(found, strict=False, assign=mapped)


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None


def _unknown(values: Mapping[str, Any], config_type: type, within: str = "") -> Iterator[str]:
    """Fields that a config type, or that of a field which is a config itself, does not have."""
    known, hints = {f.name for f in fields(config_type)}, get_type_hints(config_type)
    for name, value in values.items():
        if name not in known:
            yield within + name
        elif isinstance(value, Mapping):
            inner = [t for t in (hints[name], *get_args(hints[name])) if is_dataclass(t) and isinstance(t, type)]
            for each in inner:
                yield from _unknown(value, each, f"{within}{name}.")
