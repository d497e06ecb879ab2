"""The ranker served: the same request, the same scores, whoever else is in the batch; unseen ids have an answer."""

import json
from dataclasses import fields, replace

import pyarrow.parquet as pq
import pytest
import torch

from components.errors import UserError
from components.models.ranker import load_ranker
from components.models.ranker.data import COLUMNS, collate
from components.recipe import Rank, make_recipe


@pytest.fixture(scope="module")
def recipe(planted):
    return make_recipe("transact", planted, "debug")


@pytest.fixture(scope="module")
def model(recipe):
    """A few steps from its beginning, so that batch norm has seen data."""
    torch.manual_seed(0)
    made = recipe.build_model().train()
    (optimization,) = recipe.optimizations(made, 10)
    for _, batch in zip(range(5), recipe.train_batches(Rank()), strict=False):
        recipe.loss(made, batch)[0].backward()
        optimization.optimizer.step()
    return made.eval()


@pytest.fixture(scope="module")
def rows(planted):
    return pq.read_table(planted.files("examples/validation")[0], columns=list(COLUMNS)).slice(0, 8)


def batch_of(recipe, rows):
    return collate(rows, recipe.items, recipe.schema, sequence_length=recipe.config.sequence_length)


@torch.no_grad()
def test_two_identical_requests_get_identical_scores(recipe, model, rows):
    first, second = (model(batch_of(recipe, rows)) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@torch.no_grad()
def test_a_request_scores_alike_alone_and_in_company(recipe, model, rows):
    together = model(batch_of(recipe, rows))
    alone = torch.cat([model(batch_of(recipe, rows.slice(n, 1))) for n in range(8)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_order_of_candidates_is_no_information(recipe, model, rows):
    batch = batch_of(recipe, rows.slice(0, 1))
    order = torch.randperm(len(batch))
    moved = {f.name: getattr(batch, f.name)[order] for f in fields(batch) if f.name.split("_")[-1].startswith("B")}
    shuffled = replace(batch, **moved)
    torch.testing.assert_close(model(shuffled), model(batch)[order], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_unseen_users_and_items_share_one_defined_answer(recipe, model, rows):
    batch = batch_of(recipe, rows.slice(0, 1))
    cold = replace(
        batch,
        candidate_hash_B=torch.zeros_like(batch.candidate_hash_B),
        candidate_categorical_BC=torch.zeros_like(batch.candidate_categorical_BC),
        candidate_vector_BD=torch.zeros_like(batch.candidate_vector_BD),
        candidate_numeric_BF=torch.zeros_like(batch.candidate_numeric_BF),
        user_hash_U=torch.zeros_like(batch.user_hash_U),
        sequence=replace(
            batch.sequence,
            vector_ULD=torch.zeros_like(batch.sequence.vector_ULD),
            action_UL=torch.zeros_like(batch.sequence.action_UL),
            timestamp_UL=torch.zeros_like(batch.sequence.timestamp_UL),
        ),
    )
    logits = model(cold)
    assert bool(torch.isfinite(logits).all())
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))


def test_training_moves_every_parameter_of_the_ranker(recipe, planted):
    torch.manual_seed(0)
    made = recipe.build_model().train()
    recipe.loss(made, next(iter(recipe.train_batches(Rank()))))[0].backward()
    assert not [n for n, p in made.named_parameters() if p.grad is None]


def test_a_folder_without_an_artifact_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no artifact\.json"):
        load_ranker(tmp_path)


def test_an_artifact_with_ids_in_other_rows_is_refused(recipe, model, tmp_path):
    recipe.export(model, tmp_path)
    said = json.loads((tmp_path / "artifact.json").read_text())
    assert said.pop("format") == 2
    (tmp_path / "artifact.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match="format 1, this version reads format 2"):
        load_ranker(tmp_path)


def test_an_artifact_of_another_family_is_refused(tmp_path):
    (tmp_path / "artifact.json").write_text('{"recipe": "sasrec"}')
    with pytest.raises(UserError, match="does not train a ranker"):
        load_ranker(tmp_path)
