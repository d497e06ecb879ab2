"""SASRec trained: it learns what follows what, and never the order in which a basket is stored."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from components.contract import Contract
from components.errors import UserError
from components.evaluation.next_items import ask
from components.history.items import ItemTable
from components.history.keys import keys
from components.models.sasrec.artifact import load_sasrec
from components.models.sasrec.recipe import SASRecRecipe
from components.recipe import Rank, RecipeInputs, make_recipe

DAY = 86_400_000_000
ITEMS, TOPICS, BASKET, BASKETS, USERS = 120, 6, 5, 14, 160
START = 17_532 * DAY  # 2018-01-01


def item_table() -> ItemTable:
    ids = ["", *(f"i{n:04d}" for n in range(ITEMS))]
    labels = pl.DataFrame({"row": np.arange(len(ids)), "item_id": ids, "category": "", "title": ""})
    return ItemTable(
        keys=np.where(np.arange(len(ids)) == 0, -1, keys(ids)),
        vectors=np.zeros((len(ids), 32), np.float16),
        categorical=np.zeros((len(ids), 1), np.int32),
        hash=np.arange(len(ids), dtype=np.int32),
        numeric=np.zeros((len(ids), 1), np.float32),
        labels=labels.with_columns(created_at=pl.lit(None, pl.Datetime("us", "UTC"))),
    )


def baskets(seed: int, relabel: bool, stored_sorted: bool) -> pl.DataFrame:
    """Users whose topic moves on by one per basket; a basket is a few items of it, stored sorted by item."""
    rng, order = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    names = np.random.default_rng(99).permutation(ITEMS) if relabel else np.arange(ITEMS)
    rows = []
    for _ in range(USERS):
        topic = rng.integers(TOPICS) + np.arange(BASKETS)
        bought = [np.sort(1 + names[t % TOPICS + TOPICS * rng.choice(ITEMS // TOPICS, BASKET, False)]) for t in topic]
        if not stored_sorted:
            bought = [order.permutation(b) for b in bought]
        when = START + np.repeat(np.arange(BASKETS) * 3 * DAY, BASKET)
        rows.append({"item": np.concatenate(bought)[::-1], "timestamp": when[::-1]})
    actions = pl.Series("action", [[1] * BASKET * BASKETS] * USERS, pl.List(pl.Int16))
    return pl.DataFrame(rows, schema={"item": pl.List(pl.Int32), "timestamp": pl.List(pl.Int64)}).with_columns(actions)


def inputs(folder, *, relabel=False, ties="unordered", stored_sorted=True) -> RecipeInputs:
    item_table().save(folder / "items")
    baskets(0, relabel, stored_sorted).write_parquet(folder / "histories.parquet", row_group_size=64)
    contract = Contract.model_validate(
        {
            "name": "baskets",
            "actions": [{"name": "buy", "role": "positive"}],
            "ties": ties,
            "splits": {"burn_in": "2018-01-01", "validation": "2018-02-01", "test": "2018-02-15", "end": "2018-03-01"},
        }
    )
    tables = {
        "items": [str(p) for p in (folder / "items").iterdir()],
        "histories": [str(folder / "histories.parquet")],
    }
    return RecipeInputs(contract=contract, tables=tables)


def trained(given: RecipeInputs, seed: int = 0, **overrides):
    recipe = make_recipe("sasrec", given, "debug", {"epochs": 6, "length": 30, "users_per_batch": 8, **overrides})
    torch.manual_seed(seed)
    model, source = recipe.build_model(), recipe.train_batches(Rank())
    (optimization,) = recipe.optimizations(model, 1)
    for epoch in range(recipe.epochs):
        source.set_epoch(epoch)
        for batch in source:
            optimization.optimizer.zero_grad()
            recipe.loss(model, batch)[0].backward()
            optimization.optimizer.step()
    totals: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for batch in recipe.validation_batches(Rank()):
            for name, pair in recipe.measure(model.eval(), batch).items():
                totals[name] = totals.get(name, np.zeros(2)) + pair
    return recipe, model, {name: total / weight for name, (total, weight) in totals.items()}


KEYS = {row: int(key) for row, key in enumerate(item_table().keys)}

CHANCE = 1 - np.prod([(ITEMS - BASKET - i) / (ITEMS - i) for i in range(10)])
"""HIT@10 of ten random items against a basket."""


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_learns_which_topic_comes_next(tmp_path, loss):
    measured = trained(inputs(tmp_path), loss=loss)[2]
    # Ten of the right topic's twenty items hit one of the five bought all but certainly.
    assert measured["hit@10"] > 0.9 > CHANCE + 0.4


def ndcg(folder, seeds: int, *, ties: str = "unordered", **changes) -> np.ndarray:
    """NDCG@10 of models of several seeds."""
    folder.mkdir()
    given = inputs(folder, ties=ties, **changes)
    return np.array([trained(given, seed=seed, epochs=10)[2]["ndcg@10"] for seed in range(seeds)])


def test_relabelling_all_items_at_random_leaves_the_measures_within_noise(tmp_path):
    stored, renamed = ndcg(tmp_path / "a", 3), ndcg(tmp_path / "b", 3, relabel=True)
    noise = np.sqrt((stored.var(ddof=1) + renamed.var(ddof=1)) / 3)
    assert abs(stored.mean() - renamed.mean()) < 3 * noise


def test_the_trap_is_real_called_ordered_the_sort_within_baskets_is_learned(tmp_path):
    sort_read = ndcg(tmp_path / "a", 1, ties="ordered")
    shuffled_read = ndcg(tmp_path / "b", 1, ties="ordered", stored_sorted=False)
    assert sort_read[0] > 1.5 * shuffled_read[0]


def test_the_stored_order_of_a_basket_changes_nothing_where_ties_are_unordered(tmp_path):
    torch.testing.assert_close(ndcg(tmp_path / "a", 1), ndcg(tmp_path / "b", 1, stored_sorted=False), rtol=0, atol=0.01)


def test_an_artifact_gives_the_same_scores(tmp_path):
    recipe, model, _ = trained(inputs(tmp_path), epochs=1)
    recipe.export(model, tmp_path / "artifact")
    loaded = load_sasrec(tmp_path / "artifact")
    batch = next(recipe.validation_batches(Rank()))
    with torch.no_grad():
        torch.testing.assert_close(loaded.scores(loaded(batch)), model.scores(model(batch)))
    assert loaded.key_N[1:].tolist() == recipe.items.keys[1:].tolist()


def test_an_artifact_answers_a_question_as_the_validation_does(tmp_path):
    """The last step of each user, asked for from what came before it, in an item table of another order."""
    recipe, model, _ = trained(inputs(tmp_path), epochs=2)
    recipe.export(model, tmp_path / "artifact")
    rows = pl.read_parquet(tmp_path / "histories.parquet").with_columns(
        pl.Series("user_id", [f"u{n}" for n in range(USERS)]),
        pl.lit([0] * BASKET * BASKETS, pl.List(pl.Int32)).alias("surface"),
        pl.col("item").list.eval(pl.element().replace_strict(KEYS)).alias("item_key"),
    )
    rows.write_parquet(tmp_path / "asked.parquet", row_group_size=64)
    last = START + (BASKETS - 1) * 3 * DAY
    questions = ask([str(tmp_path / "asked.parquet")], recipe.inputs.contract, (last, last + 1), USERS)
    items, shuffled = recipe.items, np.random.default_rng(1).permutation(np.arange(1, ITEMS + 1))
    order = np.concatenate([[0], shuffled[: ITEMS - 5]])
    scored = SASRecRecipe.scorer(tmp_path / "artifact", questions, replace(items, keys=items.keys[order]))
    batch = recipe._collate(pl.read_parquet(tmp_path / "histories.parquet").to_arrow(), last + 1, since=last)
    with torch.no_grad():
        source = batch.source_K[torch.searchsorted(batch.source_K, torch.unique(batch.source_K))]
        expected = model.scores(model(batch)[source])[:, order].numpy()
    # The batch has the users the other way round.
    np.testing.assert_allclose(scored(np.arange(USERS)), expected[::-1], rtol=1e-4, atol=1e-5)


def test_an_item_never_seen_in_training_says_nothing_of_what_comes_next(tmp_path):
    recipe, model, _ = trained(inputs(tmp_path), epochs=1)
    rows = pl.read_parquet(tmp_path / "histories.parquet").head(4)
    known = recipe._collate(rows.to_arrow(), recipe.test)
    at = int(known.item_M[2])
    model.count_N[at] = 0
    with torch.no_grad():
        before = model(known)
        model.item.weight[at] += 1
        torch.testing.assert_close(model(known), before)


def test_items_without_training_actions_are_never_recommended(tmp_path):
    _, model, _ = trained(inputs(tmp_path), epochs=1)
    model.count_N[7] = 0
    scores = model.scores(torch.randn(2, model.item.weight.shape[1]))
    assert torch.isinf(scores[:, [0, 7]]).all()


def test_a_batch_of_users_with_nothing_to_predict_costs_nothing(tmp_path):
    recipe = make_recipe("sasrec", inputs(tmp_path), "debug")
    model = recipe.build_model()
    table = pl.read_parquet(tmp_path / "histories.parquet")
    for rows in (table.with_columns(pl.all().list.head(0)), table.with_columns(pl.all().list.head(1))):
        loss, _ = recipe.loss(model, recipe._collate(rows.to_arrow(), recipe.test))
        loss.backward()
        assert float(loss.detach()) == 0
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_trains_under_bfloat16(tmp_path):
    recipe = make_recipe("sasrec", inputs(tmp_path), "debug")
    model, batch = recipe.build_model(), next(iter(recipe.train_batches(Rank())))
    exact = float(recipe.loss(model.eval(), batch)[0].detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = recipe.loss(model, batch)
    rough.backward()
    assert float(rough.detach()) == pytest.approx(exact, rel=0.2)


def test_a_log_that_begins_after_the_validation_date_is_refused(tmp_path):
    given = inputs(tmp_path)
    frame = pl.read_parquet(tmp_path / "histories.parquet")
    frame.with_columns(pl.col("timestamp") + 90 * DAY).write_parquet(tmp_path / "histories.parquet")
    with pytest.raises(UserError, match="no positive action lies before the validation date"):
        _ = make_recipe("sasrec", given, "debug").proposal


def test_a_folder_without_an_artifact_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no SASRec artifact"):
        load_sasrec(tmp_path)
