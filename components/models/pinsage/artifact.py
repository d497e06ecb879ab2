"""A trained PinSage as files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.models.artifact import FORMAT, describe_as, fill, save_artifact
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
    return describe_as(folder, "pinsage", "PinSage", PinSageConfig, needed=("shapes", "vectors"))


def load_pinsage(folder: str | Path) -> PinSage:
    """Open an artifact, in evaluation mode, on the CPU.

    Raises:
        UserError: as `describe_pinsage`.
    """
    said = describe_pinsage(folder)
    model = PinSage(PinSageConfig(**said["config"]), **said["shapes"])
    fill(model, folder)
    return model.eval()
