"""TransAct trained through its recipe, as the loop would."""

import json

import pytest
import torch

from components.models.ranker import load_ranker
from components.recipe import Rank, make_recipe


def trained(recipe):
    """The recipe's model after all its epochs, and its validation measures."""
    torch.manual_seed(0)
    model, source = recipe.build_model(), recipe.train_batches(Rank())
    (optimization,) = recipe.optimizations(model, source.batches_per_epoch * recipe.epochs)
    for epoch in range(recipe.epochs):
        source.set_epoch(epoch)
        for batch in source:
            optimization.optimizer.zero_grad()
            recipe.loss(model, batch)[0].backward()
            optimization.optimizer.step()
            optimization.scheduler.step()
    sums: dict[str, list[float]] = {}
    with torch.no_grad():
        for batch in recipe.validation_batches(Rank()):
            for name, (total, weight) in recipe.measure(model.eval(), batch).items():
                sums.setdefault(name, [0.0, 0.0])
                sums[name] = [sums[name][0] + total, sums[name][1] + weight]
    return model, {name: total / weight for name, (total, weight) in sums.items()}


@pytest.fixture(scope="module")
def learned(planted):
    """Debug-sized, but given time to learn. Only the history tells what a user likes and dislikes."""
    return {
        kind: trained(make_recipe("transact", planted, "debug", {"epochs": 4, "sequence": kind}))[1]
        for kind in ("transact", "none")
    }


def test_planted_likes_are_ranked_up_and_only_the_sequence_can_know_them(learned):
    assert learned["transact"]["hit@3/save"] > 1.5
    assert learned["none"]["hit@3/save"] < 0.8


def test_planted_dislikes_are_ranked_down(learned):
    assert learned["transact"]["hit@3/hide"] < 0.2
    assert learned["none"]["hit@3/hide"] > 0.3


def test_the_peak_learning_rate_follows_the_rows_of_a_step(planted):
    rates = []
    for size in (16, 64):
        recipe = make_recipe("transact", planted, "debug", {"requests_per_batch": size, "warmup": 0.5})
        (optimization,) = recipe.optimizations(recipe.build_model(), 100)
        seen = []
        for _ in range(100):
            seen.append(optimization.scheduler.get_last_lr()[0])
            optimization.optimizer.step()
            optimization.scheduler.step()
        rates.append(max(seen))
        assert seen.index(max(seen)) in (49, 50)
        assert seen[-1] < 0.01 * max(seen)
    assert rates[1] == pytest.approx(2 * rates[0])


def test_an_artifact_says_what_serving_must_agree_with(planted, tmp_path):
    recipe = make_recipe("transact", planted, "debug")
    recipe.export(recipe.build_model(), tmp_path)
    said = json.loads((tmp_path / "artifact.json").read_text())
    assert said["recipe"] == "transact"
    assert said["vectors"] == "planted"
    assert said["feature_service"] == "transact_ranking_v2"
    assert said["utilities"] == [1.0, -1.0]
    assert 0 < said["negative_sampling_rate"] < 1
    assert load_ranker(tmp_path).config == recipe.config


def test_trains_under_bfloat16_with_almost_the_same_loss(planted):
    recipe = make_recipe("transact", planted, "debug", {"layers": 2})
    torch.manual_seed(0)
    model, batch = recipe.build_model().eval(), next(iter(recipe.train_batches(Rank())))
    exact = float(recipe.loss(model, batch)[0].detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = recipe.loss(model, batch)
    rough.backward()
    assert float(rough.detach()) == pytest.approx(exact, rel=0.02)
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_debug_flavour_trains_exports_and_scores(planted, tmp_path):
    recipe = make_recipe("transact", planted, "debug", {"epochs": 1})
    torch.manual_seed(0)
    model = recipe.build_model()
    source = recipe.train_batches(Rank())
    (optimization,) = recipe.optimizations(model, source.batches_per_epoch)
    for batch in source:
        optimization.optimizer.zero_grad()
        recipe.loss(model, batch)[0].backward()
        optimization.optimizer.step()
    recipe.export(model.eval(), tmp_path)

    artifact = load_ranker(tmp_path)
    batch = next(recipe.validation_batches(Rank()))
    probabilities, scores = artifact.score(batch)
    assert artifact.heads == ("save", "hide")
    assert probabilities.shape == (len(batch), 2)
    torch.testing.assert_close(scores, probabilities[:, 0] - probabilities[:, 1])
    torch.testing.assert_close(probabilities, torch.sigmoid(model(batch)).detach())
