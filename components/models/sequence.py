"""A recipe whose model says what a user chooses next, of everything there is: what it is asked by.

`evaluate` and `promote` ask every such recipe the same questions through these two functions and know none by name.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from components.evaluation.next_items import Questions, Scorer
from components.history.items import ItemTable
from components.recipe import BatchT, Recipe


class SequenceRecipe(Recipe[BatchT]):
    """Training of such a model; what stands in its artifact answers alone."""

    kind = "sequence"

    @staticmethod
    @abstractmethod
    def learned(folder: Path) -> tuple[int, int]:
        """First and last moment (µs since epoch) of what an artifact was trained on or chosen by.

        Raises:
            UserError: the folder holds no artifact of this recipe, or one of another version.
        """

    @staticmethod
    @abstractmethod
    def scorer(folder: Path, questions: Questions, items: ItemTable) -> Scorer:
        """An artifact's scores of all items of a table, which need not be the one that it was trained on.

        What cannot be told apart has equal scores: for a user without events, all that the model may recommend; for
        anybody, all that it may not (−inf).

        Raises:
            UserError: as `learned`.
        """
