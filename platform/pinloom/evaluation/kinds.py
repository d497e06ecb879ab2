"""What `evaluate` and `promote` ask of each kind of model; all else of the two steps is the same for all."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from components.recipe import load_recipe
from pinloom.evaluation.gate import Contest
from pinloom.lake import Lake, Manifest
from pinloom.steps.base import StepContext

MODULES = {
    "ranker": "pinloom.evaluation.rankers",
    "vectors": "pinloom.evaluation.vectors",
    "sequence": "pinloom.evaluation.sequence",
}
"""`Recipe.kind` → module; imported only when a run is of that kind."""


class Kind(Protocol):
    """The functions of such a module."""

    def evaluate(self, ctx: StepContext) -> None:
        """Measure the run: metrics, the outputs `scores` and `report`."""
        ...

    def contest(self, ctx: StepContext, challenger: Manifest, champion: Manifest | None) -> Contest:
        """Who answers what in the promotion of `challenger`, whose evaluation is the input `evaluate`.

        Raises:
            UserError: the split lies inside what either of them learned from.
        """
        ...


def kind_of(recipe: str) -> Kind:
    return cast(Kind, importlib.import_module(MODULES[load_recipe(recipe).kind]))


def read_curve(lake: Lake, train: Manifest) -> Sequence[Mapping[str, float]]:
    """Points of a run's training curve."""
    lines = lake.read_bytes(train.file("curves", "curves.jsonl")).decode().splitlines()
    points: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return points
