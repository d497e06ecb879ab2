"""A trained PinSage as files: `model.safetensors` and `artifact.json`. No pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from components.errors import UserError
from components.models.pinsage.config import PinSageConfig
from components.models.pinsage.model import PinSage

WEIGHTS, DESCRIPTION = "model.safetensors", "artifact.json"
FORMAT = 2
"""Which rows of the embedding tables categories have: of format 1 (unnamed), only every other one."""


def save_pinsage(folder: Path, model: PinSage, *, vectors: str, feature_service: str) -> None:
    """Write the two files.

    Args:
        vectors: version of the content vectors that it read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, str(folder / WEIGHTS))
    said = {
        "recipe": "pinsage",
        "format": FORMAT,
        "config": asdict(model.config),
        "shapes": model.shapes,
        "vectors": vectors,
        "feature_service": feature_service,
    }
    (folder / DESCRIPTION).write_text(json.dumps(said, indent=1))


def describe_pinsage(folder: str | Path) -> dict[str, Any]:
    """What `artifact.json` says.

    Raises:
        UserError: the folder holds no PinSage artifact, or one of another version of the code.
    """
    path = Path(folder) / DESCRIPTION
    said: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if said.get("recipe") != "pinsage":
        raise UserError(f"{folder} holds no PinSage artifact", "give the folder of a trained model of recipe 'pinsage'")
    if said.get("format", 1) != FORMAT:
        raise UserError(
            f"{path} has format {said.get('format', 1)}, this version reads format {FORMAT}",
            "use the version that trained it, or train again",
        )
    if extra := sorted(set(said["config"]) - {f.name for f in fields(PinSageConfig)}):
        raise UserError(
            f"{path} has config fields that this version does not know: {', '.join(extra)}",
            "use the version that trained it, or train again",
        )
    return said


def load_pinsage(folder: str | Path) -> PinSage:
    """Open an artifact, in evaluation mode, on the CPU.

    Raises:
        UserError: as `describe_pinsage`.
    """
    said = describe_pinsage(folder)
    model = PinSage(PinSageConfig(**said["config"]), **said["shapes"])
    model.load_state_dict(load_file(str(Path(folder) / WEIGHTS)))
    return model.eval()
