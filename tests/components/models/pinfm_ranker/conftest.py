"""Ranking rows whose users and items PinFM has seen before: a base on disk, untrained or trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.history.items import ItemTable
from components.models.pinfm.artifact import save_pinfm, save_table
from components.models.pinfm.config import PinFMConfig
from components.models.pinfm.model import PinFM
from components.recipe import Rank, RecipeInputs, make_recipe
from tests.components.models.conftest import DAY, PER_TOPIC, START, TOPICS

ACTIONS = ("save", "hide", "impression")
ALONE = {"sequence": "none", "graph": "none", "epochs": 3}
"""A ranker that knows users and items by PinFM's ids alone: neither TransAct nor the items' vectors are there."""


def write_base(
    folder: Path,
    actions: tuple[str, ...] = ACTIONS,
    learned: tuple[int, int] = (0, 1),
    trained_until: int = 0,
    **changes,
) -> list[str]:
    """Files of a base with random weights."""
    config = replace(PinFMConfig.debug(), **changes)
    torch.manual_seed(5)
    model = PinFM(config, len(actions))
    with torch.no_grad():
        for p in model.parameters():
            # Training leaves nothing at zero.
            p.add_(0.02 * torch.randn_like(p))
    save_table(folder, model)
    save_pinfm(folder, model, actions=actions, learned=learned, trained_until=trained_until)
    return sorted(str(p) for p in folder.iterdir())


def histories(inputs: RecipeInputs, users: int = 300) -> pl.DataFrame:
    """Each user saves items of one topic."""
    rng = np.random.default_rng(1)
    keys = ItemTable.load({f.rsplit("/", 1)[1]: f for f in inputs.files("items")}).keys
    rows = []
    for number in range(users):
        item = 1 + rng.integers(TOPICS) * PER_TOPIC + rng.integers(PER_TOPIC, size=30)
        time = np.sort(START - rng.integers(50 * DAY, size=30))[::-1]
        rows.append({"user_id": f"u{number}", "item_key": keys[item], "action": [1] * 30, "timestamp": time})
    lists = {"item_key": pl.List(pl.Int64), "action": pl.List(pl.Int16), "timestamp": pl.List(pl.Int64)}
    frame = pl.DataFrame(rows, schema={"user_id": pl.String, **lists})
    return frame.with_columns(surface=pl.col("action").list.eval(pl.lit(0, pl.Int32)))


@pytest.fixture(scope="session")
def with_base(planted, tmp_path_factory) -> RecipeInputs:
    return with_histories(planted, tmp_path_factory.mktemp("base"))


def with_histories(inputs: RecipeInputs, folder: Path) -> RecipeInputs:
    """And an untrained base."""
    files = write_base(folder / "artifact")
    histories(inputs).write_parquet(folder / "histories.parquet", row_group_size=50)
    more = {"artifact": files, "histories": [str(folder / "histories.parquet")]}
    return replace(inputs, tables={**inputs.tables, **more})


def pretrained(inputs, folder) -> RecipeInputs:
    """With a base that has learned from the histories."""
    recipe = make_recipe("pinfm", inputs, "debug", {"epochs": 8})
    torch.manual_seed(0)
    model, source = recipe.build_model(), recipe.train_batches(Rank())
    optimizations = recipe.optimizations(model, source.batches_per_epoch * recipe.epochs)
    for epoch in range(recipe.epochs):
        source.set_epoch(epoch)
        for batch in source:
            model.zero_grad()
            recipe.loss(model, batch)[0].backward()
            for each in optimizations:
                each.optimizer.step()
                if each.scheduler is not None:
                    each.scheduler.step()
    recipe.export_own(model, folder)
    recipe.export(model, folder)
    return replace(inputs, tables={**inputs.tables, "artifact": [str(p) for p in folder.iterdir()]})


@pytest.fixture
def make(with_base) -> Callable:
    """The recipe of debug size with single fields changed."""
    return lambda **changes: make_recipe("pinfm_ranker", with_base, "debug", changes)
