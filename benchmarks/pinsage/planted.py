"""PinSage where it must win: boards with a hidden topic, half of what lies on them by chance, content that says little.

    python -m benchmarks.pinsage.planted

Hit-rate@10 and MRR with 95% intervals on held-out pairs, beside what the same data say without it; the graph and the
configuration are those of the test. One minute.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.generator.boards import planted_boards
from components.models.pinsage.artifact import load_pinsage
from components.models.pinsage.inference import embed
from components.models.pinsage.recipe import PinSageRecipe
from components.recipe import RecipeInputs, make_recipe
from pinloom.training.local import run_local
from tests.components.models.pinsage.planted import LEARN, TOP, WORLD, contest, recipe_inputs

VARIANTS: dict[str, dict[str, str]] = {
    "PinSage": {},
    "mean pooling": {"pooling": "mean"},
    "max pooling": {"pooling": "max"},
}


def recipe_of(inputs: RecipeInputs, **changed: str) -> PinSageRecipe:
    recipe = make_recipe("pinsage", inputs, "debug", {**LEARN, **changed})
    assert isinstance(recipe, PinSageRecipe)
    return recipe


def trained(inputs: RecipeInputs, changed: dict[str, str], folder: Path) -> NDArray[np.float32]:
    """Vectors of the catalogue, [N, d]."""
    recipe = recipe_of(inputs, **changed)
    run_local(recipe, folder)
    return embed(load_pinsage(folder / "checkpoint" / "artifact"), recipe.catalogue)


def main() -> int:
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="pinloom-planted-") as name:
        folder = Path(name)
        planted = planted_boards(np.random.default_rng(0), **WORLD)
        inputs = recipe_inputs(planted, folder, TOP)
        vectors = {variant: trained(inputs, changed, folder / variant) for variant, changed in VARIANTS.items()}
        found = contest(planted, recipe_of(inputs), vectors)
    print("| | hit@10 | MRR |", "|---|---|---|", sep="\n")
    for who, measures in found.items():
        print(f"| {who} |", " | ".join(f"{i.value:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in measures.values()), "|")
    return 0


if __name__ == "__main__":
    sys.exit(main())
