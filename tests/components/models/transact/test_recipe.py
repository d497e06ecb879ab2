"""TransAct trained through its recipe, as the loop would."""

import torch

from components.models.ranker import load_ranker
from components.recipe import Rank, make_recipe


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
