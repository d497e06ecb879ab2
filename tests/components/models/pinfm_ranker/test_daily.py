"""A user's vector as a nightly batch would have it, beside TransAct (TransAct, section 3.1: PinnerFormer's place)."""

from dataclasses import replace

import torch

from components.history.statistics import DAY
from components.recipe import Rank


@torch.no_grad()
def test_it_is_of_what_lies_before_midnight(make):
    recipe = make(base="frozen", pinfm_fusion="lite_last", daily=True)
    torch.manual_seed(0)
    module = recipe.build_model().eval().modules_by_name["pinfm"]
    batch = next(recipe.validation_batches(Rank()))
    s = batch.sequence
    midnight_U1 = s.request_time_U[:, None] // DAY * DAY
    # The three newest actions are of the request's own day, the others before it.
    place = torch.arange(s.action_UL.shape[1])
    time_UL = midnight_U1 + torch.where(place < 3, 2 - place, 2 - place - 1)
    batch = replace(batch, sequence=replace(s, timestamp_UL=time_UL))
    found = module.read(batch).features_BK
    hidden = [t[:, 3:] for t in (s.item_key_UL, s.action_UL, s.surface_UL)]
    lengths = (hidden[1] > 0).sum(1).clamp(max=module.events).tolist()
    assert max(lengths) > 3
    for b, u in enumerate(batch.row_of_B.tolist()):
        newest = [t[u : u + 1, : lengths[u]].flip(1) for t in hidden]
        expected = torch.zeros(1, module.out_dim)
        if lengths[u]:
            expected = module.base.states(*newest, torch.tensor([lengths[u]]))[0]
        torch.testing.assert_close(found[b], expected[-1], rtol=0, atol=1e-5)


def test_it_trains_beside_transact_and_is_not_trained_itself(make):
    recipe = make(base="frozen", pinfm_fusion="lite_last", daily=True)
    model = recipe.build_model().train()
    recipe.loss(model, next(iter(recipe.train_batches(Rank()))))[0].backward()
    assert set(model.modules_by_name) == {"actions", "pinfm"}
    assert all(p.grad is None for p in model.modules_by_name["pinfm"].base.parameters())
    assert all(p.grad is not None for p in model.modules_by_name["actions"].parameters())
