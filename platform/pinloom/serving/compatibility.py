"""An artifact scores rightly only on the features and vectors that it was trained with."""

from __future__ import annotations

import json
from typing import Any

from components.errors import UserError
from pinloom.lake import Lake, Manifest


def check_compatible(lake: Lake, champion: Manifest, online: Manifest) -> None:
    """Compare what the artifact says with the features that the snapshot was made from.

    Raises:
        UserError: feature service, vector version or schema differ; names both sides.
    """
    said = json.loads(lake.read_bytes(champion.file("artifact", "artifact.json")))
    schema = json.loads(lake.read_bytes(online.file("schema", "schema.json")))
    differences = [
        _difference("feature service", said["feature_service"], schema["service"]),
        _difference("vector version", said["vectors"], online.metrics["vectors"]),
        *(_difference(f"schema field '{f}'", said["schema"].get(f), v) for f, v in schema.items()),
    ]
    found = [d for d in differences if d]
    if found:
        raise UserError(
            f"model {champion.key} and snapshot {online.key} do not fit: {'; '.join(found)}",
            "train and promote on the features of this snapshot; or build a snapshot as the model's was, with its "
            "declaration of features (pinloom step features materialize), or name one: --input online=URI",
        )


def _difference(what: str, trained: Any, served: Any) -> str:
    return "" if trained == served else f"{what} is {served!r}, the model was trained with {trained!r}"
