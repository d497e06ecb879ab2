"""An artifact scores rightly only on the features and vectors that it was trained with."""

from __future__ import annotations

import json
from typing import Any

from components.errors import UserError
from pinloom.lake import Lake, Manifest

RECENT = 30
"""Snapshots looked through."""


def check_compatible(lake: Lake, champion: Manifest, online: Manifest) -> None:
    """Compare what the artifact says with the features that the snapshot was made from.

    Raises:
        UserError: feature service, vector version or schema differ; names both sides.
    """
    if found := differences(lake, champion, online):
        raise UserError(
            f"model {champion.key} and snapshot {online.key} do not fit: {'; '.join(found)}",
            "train and promote on the features of this snapshot; or build a snapshot as the model's was, with its "
            "declaration of features (pinloom step features materialize), or name one: --input online=URI",
        )


def newest_fitting(lake: Lake, champion: Manifest) -> Manifest:
    """The newest snapshot that the model can score with; the newest of all when none fits.

    New vectors are materialized before a ranker that reads them is promoted, if ever one is.

    Raises:
        UserError: nothing was materialized.
    """
    newest = lake.require("online")
    recent = lake.history("online", RECENT)
    return next((online for online in recent if not differences(lake, champion, online)), newest)


def differences(lake: Lake, champion: Manifest, online: Manifest) -> list[str]:
    """What the artifact and the snapshot say differently, in words.

    Raises:
        UserError: the champion is no ranker.
    """
    said = json.loads(lake.read_bytes(champion.file("artifact", "artifact.json")))
    if "utilities" not in said:
        raise UserError(
            f"the champion {champion.key} is a '{said['recipe']}', which ranks nothing",
            "set PINLOOM_SERVING__RECIPE to a recipe that trains a ranker: transact, pinfm_ranker",
        )
    schema = json.loads(lake.read_bytes(online.file("schema", "schema.json")))
    found = [
        _difference("feature service", said["feature_service"], schema["service"]),
        _difference("vector version", said["vectors"], online.metrics["vectors"]),
        *(_difference(f"schema field '{f}'", said["schema"].get(f), v) for f, v in schema.items()),
    ]
    return [d for d in found if d]


def _difference(what: str, trained: Any, served: Any) -> str:
    return "" if trained == served else f"{what} is {served!r}, the model was trained with {trained!r}"
