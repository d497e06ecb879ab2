"""A user's vector as a nightly batch would have it, beside TransAct (TransAct, section 3.1: PinnerFormer's place)."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
import torch

from components.history.statistics import DAY
from components.models.pinfm_ranker.objective import Events
from components.recipe import Rank
from tests.components.models.conftest import SCHEMA

KNOWN, TODAY = 24, 6
"""Actions of a user before midnight and after it: together all that a row holds."""


def two_requests(make) -> tuple[Any, pl.DataFrame, list[dict[str, list[int]]]]:
    """A recipe that reads 4 newest actions; per user a request of the morning and one of the evening; what was known.

    Rows of one user lie side by side; what was known is newest first.
    """
    recipe = make(base="frozen", pinfm_fusion="lite_last", daily=True, sequence_length=4)
    assert recipe.schema.sequence_length == KNOWN + TODAY > 4 + recipe.config.pinfm_events
    rng, rows, known = np.random.default_rng(3), [], []
    columns = ("item", "action", "timestamp", "surface")
    for row in pl.read_parquet(recipe.inputs.files("examples/validation")).head(5).iter_rows(named=True):
        day = int(row["timestamp"].timestamp() * 1e6) // DAY * DAY
        ages = np.sort(rng.choice(DAY, KNOWN, replace=False))
        time = [*(day + 20_000 - np.arange(TODAY)), *(day - 1 - ages)]
        values = (rng.integers(1, 100, len(time)), rng.choice([1, 2], len(time)), time, np.zeros(len(time), int))
        all_of = {name: [int(v) for v in value] for name, value in zip(columns, values, strict=True)}
        known.append({name: values[TODAY:] for name, values in all_of.items()})
        for later, history in ((10_000, known[-1]), (30_000, all_of)):
            lists = {f"history_{name}": values for name, values in history.items()}
            rows.append({**row, **lists, "timestamp": datetime.fromtimestamp((day + later) / 1e6, UTC)})
    return recipe, pl.DataFrame(rows, schema=SCHEMA), known


@torch.no_grad()
def test_all_requests_of_a_day_read_the_history_of_midnight(make):
    recipe, rows, known = two_requests(make)
    batch = recipe._collate(rows.to_arrow())
    torch.manual_seed(0)
    module = recipe.build_model().eval().modules_by_name["pinfm"]
    events = Events.newest(batch, module.events, daily=True)
    assert events.length_U.tolist() == [module.events] * len(rows)
    for column in vars(events).values():
        assert torch.equal(column[::2], column[1::2])
    found = module.read(batch).features_BK
    for b, request in enumerate(batch.row_of_B.tolist()):
        item, action, surface = (
            torch.tensor(known[request // 2][name][: module.events]).flip(0)[None]
            for name in ("item", "action", "surface")
        )
        key = torch.from_numpy(recipe.items.keys[item.numpy()])
        expected = module.base.states(key, action, surface, torch.tensor([module.events]))[0, -1]
        torch.testing.assert_close(found[b], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_who_has_come_today_has_no_vector_and_nothing_of_today_remains(make):
    recipe, rows, _ = two_requests(make)
    today = rows[1::2].with_columns(cs.starts_with("history_").list.head(TODAY))
    batch = recipe._collate(today.to_arrow())
    module = recipe.build_model().eval().modules_by_name["pinfm"]
    events = Events.newest(batch, module.events, daily=True)
    assert (events.length_U == 0).all()
    assert (events.key_UL == -1).all()
    assert not any(t.any() for t in (events.action_UL, events.surface_UL, events.time_UL))
    assert (module.read(batch).features_BK == 0).all()


def test_only_a_daily_vector_needs_more_actions_than_the_ranker_reads(make):
    assert make(daily=True, sequence_length=4).config.window is None
    assert make(sequence_length=4).config.window == 4


def test_it_trains_beside_transact_and_is_not_trained_itself(make):
    recipe = make(base="frozen", pinfm_fusion="lite_last", daily=True)
    model = recipe.build_model().train()
    recipe.loss(model, next(iter(recipe.train_batches(Rank()))))[0].backward()
    assert set(model.modules_by_name) == {"actions", "pinfm"}
    assert all(p.grad is None for p in model.modules_by_name["pinfm"].base.parameters())
    assert all(p.grad is not None for p in model.modules_by_name["actions"].parameters())
