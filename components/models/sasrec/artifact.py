"""A trained SASRec as files, and its answers to questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.evaluation.next_items import Ints, Questions, Scorer
from components.history.items import ItemTable
from components.models.artifact import FORMAT, describe_as, fill, save_artifact
from components.models.sasrec.config import SASRecConfig
from components.models.sasrec.data import before
from components.models.sasrec.model import SASRec

RECIPE = "sasrec"


def save_sasrec(
    folder: Path,
    model: SASRec,
    *,
    positive: Sequence[int],
    ordered: bool,
    learned: tuple[int, int],
    feature_service: str = "",
) -> None:
    """Write the two files.

    Args:
        positive: action indices that make steps.
        ordered: whether equal times are steps of their own.
        learned: first and last moment (µs since epoch) of what it was trained on or chosen by.
    """
    said = {
        "recipe": RECIPE,
        "format": FORMAT,
        "config": asdict(model.config),
        "items": len(model.key_N),
        "positive": list(positive),
        "ordered": ordered,
        "learned": list(learned),
        "feature_service": feature_service,
    }
    save_artifact(folder, model, said)


def describe_sasrec(folder: str | Path) -> dict[str, Any]:
    """What `artifact.json` says.

    Raises:
        UserError: the folder holds no SASRec artifact, or one of another version of the code.
    """
    return describe_as(folder, RECIPE, "SASRec", SASRecConfig, needed=("items", "positive", "ordered", "learned"))


def load_sasrec(folder: str | Path) -> SASRec:
    """Open an artifact, in evaluation mode, on the CPU.

    Raises:
        UserError: as `describe_sasrec`.
    """
    said = describe_sasrec(folder)
    model = SASRec(SASRecConfig(**said["config"]), said["items"])
    fill(model, folder)
    return model.eval()


def answers(model: SASRec, questions: Questions, items: ItemTable, positive: list[int], ordered: bool) -> Scorer:
    """Scores of a table's items: 0 for all that it may recommend where nothing was done before, −inf for the others."""
    row_N, row_M = (_rows(model, key) for key in (items.keys, questions.events["item_key"]))

    @torch.no_grad()
    def score(asked: Ints) -> NDArray[np.float32]:
        batch, place, last = before(
            questions, asked, row_M, positive=positive, ordered=ordered, length=model.config.length
        )
        state_QD = torch.zeros(len(asked), model.config.dim)
        if len(last):
            state_QD[place] = model(batch)[last]
        scored: NDArray[np.float32] = model.scores(state_QD)[:, row_N].numpy()
        return scored

    return score


def _rows(model: SASRec, wanted: Ints) -> Ints:
    """The model's row of each item key; 0 = it has none."""
    known = model.key_N.numpy()
    order = np.argsort(known, kind="stable")
    at = order[np.minimum(np.searchsorted(known[order], wanted), len(known) - 1)]
    return np.where((known[at] == wanted) & (wanted >= 0), at, 0)
