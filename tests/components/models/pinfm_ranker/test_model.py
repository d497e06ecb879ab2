"""PinFM in the ranker: DCAT against the full run, what training changes at random, what is learned and what is kept."""

from dataclasses import fields, replace

import pytest
import torch

from components.models.pinfm_ranker.config import ABLATIONS
from components.models.pinfm_ranker.model import PinFMModule
from components.models.pinfm_ranker.objective import Events
from components.models.ranker import load_ranker
from components.recipe import Rank, make_recipe
from components.serving.dcat import full_run
from tests.components.models.pinfm_ranker.conftest import write_base


def model_of(recipe):
    """Its model with a little noise on every weight, so that nothing is still at its beginning; and its module."""
    torch.manual_seed(0)
    model = recipe.build_model().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return model, model.modules_by_name["pinfm"]


def training_batch(recipe):
    return next(iter(recipe.train_batches(Rank())))


def validation_batch(recipe, empty=(2,)):
    """Some requests, of which `empty` have no history."""
    batch = next(recipe.validation_batches(Rank()))
    action = batch.sequence.action_UL.clone()
    action[list(empty)] = 0
    return replace(batch, sequence=replace(batch.sequence, action_UL=action))


def behind_its_history(module: PinFMModule, batch, b: int) -> torch.Tensor:
    """The slow way: [history; learnable token; candidate] through the base for one candidate alone. [D + E]."""
    base, s, u = module.base, batch.sequence, int(batch.row_of_B[b])
    length = min(int((s.action_UL[u] > 0).sum()), module.events)
    newest = [t[u, :length].flip(0) for t in (s.item_key_UL, s.action_UL, s.surface_UL)]
    tokens = list(base.tokens(base.events(base.embed(newest[0]), newest[1], newest[2])))
    e = base.embed(batch.candidate_key_B[b])
    candidate = base.tokens(base.events(e, torch.tensor(0), batch.candidate_surface_B[b]))
    if module.graph is not None:
        candidate = candidate + module.graph(batch.candidate_vector_BD[b])
    if module.token is not None:
        tokens.append(module.token)
    states = base.decoder(torch.stack([*tokens, candidate])[None])
    return torch.cat([base.outputs(states[0, -1]), e])


@pytest.mark.parametrize("graph", ["vector+token", "vector", "none"])
@torch.no_grad()
def test_early_fusion_is_the_full_causal_run_of_each_candidate(make, graph):
    recipe = make(graph=graph)
    _, module = model_of(recipe)
    batch = validation_batch(recipe)
    found = module.read(batch).features_BK
    expected = torch.stack([behind_its_history(module, batch, b) for b in range(len(batch))])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_base_of_hstu_layers_is_crossed_kept_and_served_as_any_other(with_base, tmp_path):
    files = write_base(tmp_path / "base", block="hstu", position="none")
    inputs = replace(with_base, tables={**with_base.tables, "artifact": files})
    recipe = make_recipe("pinfm_ranker", inputs, "debug")
    model, module = model_of(recipe)
    batch = replace(validation_batch(recipe), user_hash_U=1 + torch.arange(validation_batch(recipe).requests))
    expected = torch.stack([behind_its_history(module, batch, b) for b in range(0, len(batch), 3)])
    torch.testing.assert_close(module.read(batch).features_BK[::3], expected, rtol=0, atol=1e-5)
    recipe.export(model, tmp_path / "ranker")
    served = load_ranker(tmp_path / "ranker").model
    served.remember(2**20)
    for _ in range(2):
        torch.testing.assert_close(served(batch), model(batch), rtol=0, atol=1e-5)
    assert served.modules_by_name["pinfm"].cache.hits == batch.requests


@pytest.mark.parametrize("fusion", ["lite_mean", "lite_last"])
@torch.no_grad()
def test_lite_fusions_are_of_the_history_alone(make, fusion):
    recipe = make(pinfm_fusion=fusion)
    _, module = model_of(recipe)
    batch = validation_batch(recipe)
    found, s = module.read(batch).features_BK, batch.sequence
    for b, u in enumerate(batch.row_of_B.tolist()):
        length = min(int((s.action_UL[u] > 0).sum()), module.events)
        newest = [t[u : u + 1, :length].flip(1) for t in (s.item_key_UL, s.action_UL, s.surface_UL)]
        states = module.base.states(*newest, torch.tensor([length]))[0] if length else torch.zeros(1, module.out_dim)
        expected = states.mean(0) if fusion == "lite_mean" else states[-1]
        torch.testing.assert_close(found[b], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_equal_histories_run_once_and_candidates_keep_their_places(make):
    recipe = make()
    _, module = model_of(recipe)
    batch = validation_batch(recipe)
    assert len(module.read(batch).context) == batch.requests
    # Every other request gets the history of the first.
    same = torch.where(torch.arange(batch.requests) % 2 == 0, 0, torch.arange(batch.requests))
    sequence = type(batch.sequence)(*(getattr(batch.sequence, f.name)[same] for f in fields(batch.sequence)))
    shared = replace(batch, sequence=sequence)
    reading = module.read(shared)
    assert len(reading.context) == 1 + batch.requests // 2
    expected = torch.stack([behind_its_history(module, shared, b) for b in range(0, len(shared), 5)])
    torch.testing.assert_close(reading.features_BK[::5], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fusion", ["early", "lite_mean", "lite_last"])
@torch.no_grad()
def test_a_context_is_kept_until_the_user_acts_again(make, fusion):
    recipe = make(pinfm_fusion=fusion)
    model, module = model_of(recipe)
    batch = validation_batch(recipe)
    batch = replace(batch, user_hash_U=1 + torch.arange(batch.requests))
    fresh = model(batch)
    model.remember(2**20)
    first, second = model(batch), model(batch)
    torch.testing.assert_close(first, fresh, rtol=0, atol=1e-5)
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert (module.cache.hits, module.cache.misses) == (batch.requests, batch.requests)
    action = batch.sequence.action_UL.clone()
    action[0, 0] = 3 - action[0, 0]
    acted = replace(batch, sequence=replace(batch.sequence, action_UL=action))
    later = model(acted)
    assert (module.cache.hits, module.cache.misses) == (2 * batch.requests - 1, batch.requests + 1)
    model.remember(2**20)
    torch.testing.assert_close(later, model(acted), rtol=0, atol=1e-5)
    changed = (later - first).abs().amax(1) > 1e-6
    assert set(batch.row_of_B[changed].tolist()) == {0}


def test_behind_a_gate_the_ranker_starts_as_the_one_without_and_the_module_learns_all_the_same(make):
    recipe = make(gate=True)
    model = recipe.build_model().eval()
    module = model.modules_by_name["pinfm"]
    batch = validation_batch(recipe)
    reading = module.read(batch)
    assert not reading.features_BK.any()
    assert reading.own_BK.abs().sum(1).min() > 0
    losses = model.train()(batch, recipe.criterion)
    torch.stack([*losses.values()]).sum().backward()
    assert module.gate.grad.abs().max() > 0
    assert module.base.table.weight.grad.to_dense().abs().max() > 0


def test_without_room_nothing_is_kept(make):
    model, module = model_of(make())
    model.remember(0)
    assert module.cache is None


@pytest.mark.parametrize("training", [False, True], ids=["serving", "training"])
def test_where_slots_are_few_the_candidate_displaces_the_oldest_events(make, training):
    recipe = make(slots=6, random_candidates=0.0, dropout_7d=0.0, dropout_28d=0.0, sequence_loss=0.0)
    _, module = model_of(recipe)
    batch, base = validation_batch(recipe), module.train(training).base
    events = Events.newest(batch, module.events)
    assert int(events.length_U.max()) > 6
    with torch.set_grad_enabled(training):
        found = module.read(batch).features_BK
    e_BE = base.embed(batch.candidate_key_B)
    x_ULD = base.tokens(base.events(base.embed(events.key_UL), events.action_UL, events.surface_UL))
    own = module.candidate_tokens(batch, e_BE)
    h_BD, whole = (
        base.outputs(full_run(base.decoder, x_ULD, events.length_U, own, batch.row_of_B, slots=n)) for n in (6, None)
    )
    torch.testing.assert_close(found, torch.cat([h_BD, e_BE], -1), rtol=0, atol=1e-5)
    assert not torch.allclose(h_BD, whole, atol=1e-3)


def test_a_tenth_of_the_candidates_are_somebody_else_in_training(make):
    recipe = make(dropout_7d=0.0, dropout_28d=0.0)
    _, module = model_of(recipe)
    batch = training_batch(recipe)
    e = module.base.embed(batch.candidate_key_B)
    torch.manual_seed(1)
    embedded = torch.stack([module.train().read(batch).features_BK[:, -e.shape[1] :] for _ in range(40)])
    replaced = (embedded != e).any(-1)
    trials = replaced.numel()
    assert abs(replaced.float().mean() - 0.1) < 4 * (0.09 / trials) ** 0.5
    # By an id that no item has, another one each time.
    strangers = embedded[replaced].detach()
    known = module.base.embed(torch.from_numpy(recipe.items.keys.copy())).detach()
    assert torch.cdist(strangers[:50], known).min() > 1e-3
    assert len(strangers.unique(dim=0)) == len(strangers)
    assert bool((module.eval().read(batch).features_BK[:, -e.shape[1] :] == e).all())


def test_outputs_of_young_items_are_dropped_by_their_age(make):
    recipe = make()
    _, module = model_of(recipe)
    torch.manual_seed(1)
    age = torch.tensor([0.0, 6.99, 7.0, 27.9, 28.0, 3650.0])
    ones = torch.ones(len(age), 200_000)
    dropped = module._fresh_dropout(ones, age)
    torch.testing.assert_close(
        (dropped == 0).float().mean(1), torch.tensor([0.7, 0.7, 0.5, 0.5, 0, 0]), rtol=0, atol=5e-3
    )
    torch.testing.assert_close(dropped.mean(1), torch.ones(len(age)), rtol=0, atol=1.5e-2)
    young = replace(training_batch(recipe), candidate_age_B=torch.ones(len(training_batch(recipe))))
    assert not bool((module.eval().read(young).features_BK == 0).any())
    assert 0.65 < float((module.train().read(young).features_BK == 0).float().mean()) < 0.75


def step_through(recipe, steps=4):
    """The model before and after some steps, in training mode."""
    torch.manual_seed(0)
    model = recipe.build_model().train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizations = recipe.optimizations(model, 10)
    for _, batch in zip(range(steps), recipe.train_batches(Rank()), strict=False):
        model.zero_grad()
        recipe.loss(model, batch)[0].backward()
        for optimization in optimizations:
            optimization.optimizer.step()
            optimization.scheduler.step()
    return model, before


def test_a_step_changes_the_rows_of_the_table_that_were_looked_up_alone(make):
    recipe = make(random_candidates=0.0)
    model, before = step_through(recipe, steps=1)
    table, batch = model.modules_by_name["pinfm"].base.table, training_batch(recipe)
    s = batch.sequence
    key = torch.cat([batch.candidate_key_B, s.item_key_UL[s.action_UL > 0]])
    changed = (table.weight != before["sequences.pinfm.base.table.weight"]).any(1)
    assert set(changed.nonzero()[:, 0].tolist()) <= set(table.rows_of(key[key >= 0]).flatten().tolist())
    assert table.weight.grad.is_sparse
    assert 0 < int(changed.sum()) < len(changed)


def test_a_frozen_base_stays_as_it_was(make):
    model, before = step_through(make(base="frozen"))
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert not [name for name in moved if name.startswith("sequences.pinfm.base.")]
    assert {name for name in before if not name.startswith("sequences.pinfm.base.")} == moved
    module = model.modules_by_name["pinfm"]
    assert module.training
    assert not any(m.training for m in module.base.modules())


def test_a_tuned_base_starts_from_the_pretrained_weights_and_one_from_scratch_does_not(make, with_base):
    from components.models.pinfm.artifact import load_pinfm

    pretrained = load_pinfm(make().folder).state_dict()
    for base, alike in (("tuned", True), ("frozen", True), ("scratch", False)):
        torch.manual_seed(0)
        own = make(base=base).build_model().modules_by_name["pinfm"].base.state_dict()
        assert own.keys() == pretrained.keys()
        assert torch.equal(own["table.weight"], pretrained["table.weight"]) or not alike
        assert torch.equal(own["phi_in.layers.0.weight"], pretrained["phi_in.layers.0.weight"]) == alike
    model, before = step_through(make())
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(before)


def test_the_base_learns_at_a_tenth_of_the_ranker_s_rate(make):
    recipe = make(pinfm_learning_rate=0.1)
    model = recipe.build_model()
    optimizations = recipe.optimizations(model, 100)
    base = {id(p) for p in model.modules_by_name["pinfm"].base.parameters()}
    seen = []
    for _ in range(30):
        for group in (g for o in optimizations for g in o.optimizer.param_groups):
            slow = {id(p) in base for p in group["params"]}
            assert len(slow) == 1
            seen.append((group["lr"], slow.pop()))
        for optimization in optimizations:
            optimization.optimizer.step()
            optimization.scheduler.step()
    fast, slow = ([rate for rate, is_base in seen if is_base == which] for which in (False, True))
    # The base's dense weights, and its table.
    assert slow == pytest.approx([rate / 10 for rate in fast for _ in range(2)])
    trained = [id(p) for o in optimizations for group in o.optimizer.param_groups for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", ["full", *ABLATIONS])
def test_every_ablation_is_a_configuration_that_trains_all_that_it_has(make, name):
    """DDP waits for the gradient of every parameter that may have one."""
    recipe = make(**ABLATIONS.get(name, {}))
    torch.manual_seed(0)
    model = recipe.build_model().train()
    loss, numbers = recipe.loss(model, training_batch(recipe))
    loss.backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not numbers or sum(numbers.values()) == pytest.approx(float(loss.detach()), rel=1e-5)


@pytest.mark.parametrize("name", ["full", "Table 1: lite-mean", "Table 6: frozen"])
def test_trains_under_bfloat16_with_almost_the_same_loss(make, name):
    recipe = make(**ABLATIONS.get(name, {}), random_candidates=0.0)
    torch.manual_seed(0)
    model, batch = recipe.build_model().eval(), training_batch(recipe)
    exact = float(recipe.loss(model, batch)[0].detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = recipe.loss(model, batch)
    rough.backward()
    assert float(rough.detach()) == pytest.approx(exact, rel=0.02)
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        recipe.loss(model, batch)[0].backward()
    assert all(bool(torch.isfinite(p.grad.to_dense()).all()) for p in model.parameters() if p.requires_grad)
