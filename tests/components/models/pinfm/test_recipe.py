"""PinFM pretrained on generated logs: it learns what users like, and nothing from how a tied basket is stored."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from components.contract import Contract
from components.errors import UserError
from components.evaluation.next_items import recall
from components.evaluation.next_rivals import Log, Rivals
from components.generator import Catalogue, People, World, simulate
from components.history.items import ItemTable
from components.history.keys import keys
from components.history.schema import id_hash
from components.models.pinfm.artifact import load_pinfm
from components.models.pinfm.recipe import PinFMRecipe, score, targets_of
from components.recipe import Rank, RecipeInputs, make_recipe

ACTIONS = {"click": 1, "save": 2, "hide": 3}
WORLD = World(actions=60_000, topics=24, days=60, phase_days=40)
DAY = 86_400_000_000


def contract(ties: str = "ordered") -> Contract:
    roles = {"click": "positive", "save": "positive", "hide": "negative"}
    return Contract.model_validate(
        {
            "name": "generated",
            "actions": [{"name": n, "role": r} for n, r in roles.items()],
            "ties": ties,
            "splits": {"burn_in": "2024-01-02", "validation": "2024-02-10", "test": "2024-02-20", "end": "2024-03-01"},
        }
    )


def item_table(count: int) -> ItemTable:
    ids = ["", *(f"i{n}" for n in range(count))]
    labels = pl.DataFrame({"row": np.arange(len(ids)), "item_id": ids, "category": "", "title": ""})
    return ItemTable(
        keys=np.where(np.arange(len(ids)) == 0, -1, keys(ids)),
        vectors=np.zeros((len(ids), 32), np.float16),
        categorical=np.zeros((len(ids), 1), np.int32),
        hash=np.arange(len(ids), dtype=np.int32),
        numeric=np.zeros((len(ids), 1), np.float32),
        labels=labels.with_columns(created_at=pl.lit(None, pl.Datetime("us", "UTC"))),
    )


def histories(log: pl.DataFrame) -> pl.DataFrame:
    """Rows of `user`, `row` (of the item table), `action`, `surface`, `time` (µs) → by user, newest first."""
    ids = pl.Series(["", *(f"i{n}" for n in range(log["row"].max()))])
    flat = log.select(
        user_id="user",
        item=pl.col("row").cast(pl.Int32),
        item_key=pl.Series(keys(ids)).gather(log["row"]),
        action=pl.col("action").cast(pl.Int16),
        surface=pl.col("surface").cast(pl.Int32),
        timestamp="time",
    )
    return flat.sort("timestamp", descending=True, maintain_order=True).group_by("user_id", maintain_order=True).all()


def generated() -> pl.DataFrame:
    catalogue = Catalogue(WORLD)
    log = pl.concat([simulate(WORLD, catalogue, People(WORLD, b), b) for b in range(WORLD.buckets)])
    did = log.filter(pl.col("action") != "impression")
    return did.select(
        "user",
        row=pl.col("item").str.slice(1).cast(pl.Int64) + 1,
        action=pl.col("action").replace_strict(ACTIONS, return_dtype=pl.Int16),
        surface=pl.col("surface").map_elements(id_hash, return_dtype=pl.Int32),
        time=pl.col("time_ms") * 1000,
    )


def inputs(folder, log: pl.DataFrame, items: int, ties: str = "ordered") -> RecipeInputs:
    folder.mkdir(exist_ok=True)
    item_table(items).save(folder / "items")
    histories(log).write_parquet(folder / "h.parquet", row_group_size=50)
    tables = {"items": [str(p) for p in (folder / "items").iterdir()], "histories": [str(folder / "h.parquet")]}
    return RecipeInputs(contract=contract(ties), tables=tables)


def trained(given: RecipeInputs, **overrides):
    recipe = make_recipe("pinfm", given, "debug", overrides)
    assert isinstance(recipe, PinFMRecipe)
    torch.manual_seed(0)
    model, source = recipe.build_model(), recipe.train_batches(Rank())
    steps = recipe.optimizations(model, recipe.epochs * source.batches_per_epoch)
    for epoch in range(recipe.epochs):
        source.set_epoch(epoch)
        for batch in source:
            for step in steps:
                step.optimizer.zero_grad()
            recipe.loss(model, batch)[0].backward()
            for step in steps:
                step.optimizer.step()
                step.scheduler.step()
    return recipe, model.eval()


def measured(recipe, model) -> dict[str, float]:
    totals: dict[str, np.ndarray] = {}
    for batch in recipe.validation_batches(Rank()):
        with torch.no_grad():
            for name, pair in recipe.measure(model, batch).items():
                totals[name] = totals.get(name, np.zeros(2)) + pair
    return {name: total / weight for name, (total, weight) in totals.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> RecipeInputs:
    return inputs(tmp_path_factory.mktemp("world"), generated(), WORLD.items)


@pytest.fixture(scope="module")
def foundation(world):
    return trained(world, epochs=10, window=16, picks=16)


def test_pretraining_finds_what_popularity_does_not(world, foundation):
    """A user clicks along two topics of twenty-four, which only the history tells."""
    recipe, model = foundation
    questions = recipe.questions
    start, stop = world.contract.splits.interval("validation")
    split, end = (round(t.timestamp() * 1e6) for t in (start, stop))
    log = Log.read(world.files("histories"), world.contract, (split - 40 * DAY, end))
    vectors = np.zeros((WORLD.items + 1, 2), np.float32)
    rival = Rivals(questions, log, split, vectors, world.contract.indices("positive"))
    popularity = recall(questions.places(rival.popularity), questions.question_P, len(questions), 10).mean()
    ours = measured(recipe, model)
    assert len(questions) > 150
    assert ours["recall@10"] > 2 * popularity > 0
    assert ours["recall@100"] > ours["recall@10"]


def test_the_losses_fall_and_the_temperature_moves(world):
    recipe, model = trained(world, epochs=3)
    fresh = recipe.build_model().eval()
    batch = next(iter(recipe.train_batches(Rank())))
    before, after = (recipe.loss(m, batch)[1] for m in (fresh, model))
    assert all(after[name] < before[name] for name in ("next_token", "multi_token", "future_token"))
    assert after["temperature"] != before["temperature"]


def test_an_artifact_gives_the_same_scores(foundation, tmp_path):
    recipe, model = foundation
    recipe.export_own(model, tmp_path)
    recipe.export(model, tmp_path)
    loaded = load_pinfm(tmp_path)
    batch = recipe.questions.batches(recipe.config.length, 32)[0]
    np.testing.assert_array_equal(
        score(loaded, batch, targets_of(loaded, recipe.items.keys)),
        score(model, batch, targets_of(model, recipe.items.keys)),
    )
    said = json.loads((tmp_path / "artifact.json").read_text())
    assert said["actions"] == list(ACTIONS)
    assert said["learned"] == [recipe.segments.first, recipe.test - 1]


def test_validation_asks_each_user_once_about_a_moment_of_the_split(foundation):
    recipe, _ = foundation
    questions = recipe.questions
    assert len(np.unique(questions.user_Q)) == len(questions)
    assert (questions.time_Q >= recipe.validation).all()
    assert (questions.time_Q < recipe.test).all()
    for begin, end, now in zip(questions.begin_Q, questions.end_Q, questions.time_Q, strict=True):
        assert (questions.events["timestamp"][begin:end] < now).all()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_questions_in_as_many_batches_each(foundation, world_size):
    recipe, _ = foundation
    parts = [list(recipe.validation_batches(Rank(r, world_size))) for r in range(world_size)]
    assert len({len(p) for p in parts}) == 1
    asked = torch.cat([b.question_Q for p in parts for b in p])
    assert sorted(asked.tolist()) == list(range(len(recipe.questions)))


def test_a_batch_without_questions_weighs_nothing(foundation):
    recipe, model = foundation
    empty = recipe.questions.batch(np.zeros(0, np.int64), recipe.config.length)
    assert set(recipe.measure(model, empty).values()) == {(0.0, 0.0)}


ITEMS, TOPICS, BASKET, BASKETS, USERS = 120, 6, 5, 16, 120


def baskets(stored_sorted: bool, seed: int = 0) -> pl.DataFrame:
    """Users whose topic moves on by one per basket; a basket is a few items of it under one timestamp."""
    rng, order = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    rows = []
    for user in range(USERS):
        for n, topic in enumerate(rng.integers(TOPICS) + np.arange(BASKETS)):
            bought = np.sort(topic % TOPICS + TOPICS * rng.choice(ITEMS // TOPICS, BASKET, False))
            if not stored_sorted:
                bought = order.permutation(bought)
            when = 1_704_067_200_000_000 + 3 * n * DAY
            rows += [{"user": f"u{user}", "row": int(i) + 1, "action": 1, "surface": 0, "time": when} for i in bought]
    return pl.DataFrame(rows)


def test_a_basket_predicts_the_set_of_the_next_one_however_it_is_stored(tmp_path):
    """Ten of the right topic's twenty items hold half of the five bought. Users move on: there is nothing to copy."""
    given = inputs(tmp_path / "sorted", baskets(True), ITEMS, "unordered")
    recipe, model = trained(given, epochs=20, copy=0.0)
    stored = measured(recipe, model)["recall@10"]
    assert stored == pytest.approx(0.5, abs=0.07)
    shuffled = inputs(tmp_path / "shuffled", baskets(False), ITEMS, "unordered")
    assert measured(*trained(shuffled, epochs=20, copy=0.0))["recall@10"] == pytest.approx(stored, abs=0.07)


def test_trains_under_bfloat16(foundation):
    recipe, model = foundation
    batch = next(iter(recipe.train_batches(Rank())))
    exact = float(recipe.loss(model, batch)[0].detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = recipe.loss(model, batch)
    rough.backward()
    model.zero_grad()
    assert float(rough.detach()) == pytest.approx(exact, rel=0.1)


@torch.no_grad()
def test_under_bfloat16_a_catalogue_is_ranked_as_finely_as_without(foundation):
    recipe, model = foundation
    batch = recipe.questions.batches(recipe.config.length, 32)[0]
    fine = score(model, batch, targets_of(model, recipe.items.keys))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = score(model, batch, targets_of(model, recipe.items.keys))
    assert rough.dtype == np.float32
    for one, other in zip(rough, fine, strict=True):
        assert len(np.unique(one)) > 0.98 * len(np.unique(other)) > 100


def test_a_log_that_begins_after_the_validation_date_is_refused(tmp_path):
    log = baskets(True).with_columns(pl.col("time") + 90 * DAY)
    given = inputs(tmp_path / "late", log, ITEMS)
    with pytest.raises(UserError, match="no user has a positive action on a known item before 2024-02-10"):
        _ = make_recipe("pinfm", given, "debug").segments


def test_a_log_without_validation_days_is_refused(tmp_path):
    given = inputs(tmp_path / "early", baskets(True).with_columns(pl.col("time") - 90 * DAY), ITEMS)
    with pytest.raises(UserError, match="no positive action lies in the validation split"):
        _ = make_recipe("pinfm", given, "debug").questions


def test_held_out_days_are_not_learned_from_and_the_artifact_says_so(world, tmp_path):
    whole, cut = (make_recipe("pinfm", world, "debug", {"hold_out_days": days}) for days in (0, 10))
    assert cut.segments.counts.count_I.sum() < whole.segments.counts.count_I.sum()
    until = whole.validation - 10 * DAY
    assert until - DAY < last_event(cut) < until <= last_event(whole) < whole.validation
    cut.export(cut.build_model(), tmp_path)
    said = json.loads((tmp_path / "artifact.json").read_text())
    assert (said["trained_until"], said["learned"][1]) == (until, cut.test - 1)


def last_event(recipe) -> int:
    columns = ["user_id", "item_key", "action", "surface", "timestamp"]
    return max(max(times) for p in recipe.segments.pieces for times in p.read(columns)["timestamp"].to_pylist())


def test_only_matrices_decay(world):
    recipe = make_recipe("pinfm", world, "debug", {"weight_decay": 0.25})
    model = recipe.build_model()
    adamw = recipe.optimizations(model, 10)[0].optimizer
    decay = {id(p): group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    for name, p in model.named_parameters():
        if name != "table.weight":
            assert decay[id(p)] == (0.0 if p.ndim < 2 else 0.25), name


def test_every_ablation_is_a_configuration(world):
    recipe = make_recipe("pinfm", world)
    for name, change in recipe.ablations.items():
        assert replace(recipe.config, **change) != recipe.config, name
