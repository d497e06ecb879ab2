"""A trained PinSage as files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.models.artifact import FORMAT, describe_artifact, load_weights, refuse_other_version, save_artifact
from components.models.pinsage.config import PinSageConfig
from components.models.pinsage.model import PinSage


def save_pinsage(folder: Path, model: PinSage, *, vectors: str, feature_service: str) -> None:
    """Write the two files.

    Args:
        vectors: version of the content vectors that it read.
    """
    said = {
        "recipe": "pinsage",
        "format": FORMAT,
        "config": asdict(model.config),
        "shapes": model.shapes,
        "vectors": vectors,
        "feature_service": feature_service,
    }
    save_artifact(folder, model, said)


def describe_pinsage(folder: str | Path) -> dict[str, Any]:
    """What `artifact.json` says.

    Raises:
        UserError: the folder holds no PinSage artifact, or one of another version of the code.
    """
    said = describe_artifact(folder)
    if said.get("recipe") != "pinsage":
        raise UserError(f"{folder} holds no PinSage artifact", "give the folder of a trained model of recipe 'pinsage'")
    refuse_other_version(folder, said, PinSageConfig, "use the version that trained it, or train again")
    return said


def load_pinsage(folder: str | Path) -> PinSage:
    """Open an artifact, in evaluation mode, on the CPU.

    Raises:
        UserError: as `describe_pinsage`.
    """
    said = describe_pinsage(folder)
    model = PinSage(PinSageConfig(**said["config"]), **said["shapes"])
    model.load_state_dict(load_weights(folder))
    return model.eval()
