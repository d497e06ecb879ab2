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


def refuse_other_version(folder: str | Path, said: Mapping[str, Any], config_type: type, remedy: str) -> None:
    """
    Raises:
        UserError: the artifact is of another version of the code.
    """
    path = Path(folder) / DESCRIPTION
    if said.get("format", 1) != FORMAT:
        raise UserError(f"{path} has format {said.get('format', 1)}, this version reads format {FORMAT}", remedy)
    if extra := sorted(_unknown(said["config"], config_type)):
        raise UserError(
            f"{path} has config fields that this version does not know: {', '.join(extra)}",
            remedy,
        )


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
