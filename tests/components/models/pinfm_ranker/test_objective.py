"""The module's losses, each against a plain loop."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from components.contract import Ties
from components.models.pinfm.config import PinFMConfig
from components.models.pinfm.model import PinFM
from components.models.pinfm.negatives import ItemCounts
from components.models.pinfm_ranker.objective import Events, NextToken
from components.recipe import Rank

COUNTS = ItemCounts(np.arange(10, 30), np.arange(1, 21))
POSITIVE = (1,)


def small_base():
    torch.manual_seed(0)
    return PinFM(PinFMConfig.debug(), 3).eval()


def histories(rng) -> Events:
    """Four histories of up to 12 events, two of them of one user, with many equal times."""
    length = torch.tensor([12, 7, 0, 9])
    real = torch.arange(12) < length[:, None]
    key = torch.from_numpy(rng.integers(10, 30, (4, 12)))
    key[1, 2] = -1
    time = torch.from_numpy(np.sort(rng.integers(0, 6, (4, 12))))
    action = torch.from_numpy(rng.choice([1, 1, 2], (4, 12)))
    return Events(torch.where(real, key, -1), action * real, torch.zeros_like(key), time * real, length)


def moments(events: Events, u: int, ties: Ties) -> list[list[int]]:
    """Events of a history as moments, oldest first."""
    found: list[list[int]] = []
    for i in range(int(events.length_U[u])):
        if found and ties is Ties.UNORDERED and events.time_UL[u, i] == events.time_UL[u, found[-1][0]]:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def chosen(events: Events, u: int, places) -> set[int]:
    return {int(events.key_UL[u, i]) for i in places if events.action_UL[u, i] in POSITIVE and events.key_UL[u, i] >= 0}


def by_loop(base: PinFM, events: Events, states, user, ties: Ties) -> float:
    of_user: dict[int, set[int]] = {}
    total = 0
    longest = {max((v for v in range(len(user)) if user[v] == name), key=lambda v: events.length_U[v]) for name in user}
    for u in longest:
        everything = range(int(events.length_U[u]))
        of_user.setdefault(user[u], set()).update(chosen(events, u, everything))
        total += sum(1 for i in everything if events.action_UL[u, i] in POSITIVE and events.key_UL[u, i] >= 0)
    items = set().union(*of_user.values())
    z = {i: base.targets(base.embed(torch.tensor(i))) for i in items}
    tau, whole = float(base.temperature), float(COUNTS.count_I.sum())
    means = []
    for u in longest:
        steps = moments(events, u, ties)
        for now, after in itertools.pairwise(steps):
            h = base.outputs(states[u, now[-1]])
            against = 0.0
            for i in items - of_user[user[u]]:
                chance = 1 - (1 - min(float(COUNTS.count_I[i - 10]) / whole, 0.5)) ** total
                against += math.exp(float(h @ z[i]) / tau) / chance
            wanted = [math.exp(float(h @ z[i]) / tau) for i in chosen(events, u, after)]
            if wanted:
                means.append(np.mean([-math.log(w / (w + against)) for w in wanted]))
    return float(np.mean(means))


@pytest.mark.parametrize("ties", list(Ties))
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_the_next_token_loss_is_that_of_a_loop(ties, seed):
    base, events, user = small_base(), histories(np.random.default_rng(seed)), [7, 8, 9, 7]
    states = base.decoder(base.tokens(base.events(base.embed(events.key_UL), events.action_UL, events.surface_UL)))
    loss = NextToken(COUNTS, POSITIVE, ties, positions=1000)(base, states, events, torch.tensor(user))
    assert float(loss) == pytest.approx(by_loop(base, events, states, user, ties), rel=1e-4)


@torch.no_grad()
def test_what_a_user_s_requests_tell_again_counts_once():
    """Three requests of one user, each with a few events more, beside another user's."""
    base, rng = small_base(), np.random.default_rng(0)
    key, time = torch.from_numpy(rng.integers(10, 30, (2, 12))), torch.arange(12).expand(2, -1)
    row, length, zero = torch.tensor([0, 0, 0, 1]), torch.tensor([8, 12, 4, 9]), torch.zeros(4, 12, dtype=torch.int64)
    nested = Events(key[row], zero + 1, zero, time[row], length)
    loss, user = NextToken(COUNTS, POSITIVE, Ties.ORDERED, positions=1000), torch.tensor([7, 7, 7, 8])
    states = base.decoder(base.tokens(base.events(base.embed(nested.key_UL), nested.action_UL, nested.surface_UL)))
    once = torch.tensor([1, 3])
    alone = loss(base, states[once], nested.rows(once), user[once])
    assert float(loss(base, states, nested, user)) == pytest.approx(float(alone), rel=1e-6)


@pytest.mark.parametrize("change", [{"log_q": False}, {"exclude_same_user": False}], ids=str)
@torch.no_grad()
def test_negatives_are_those_that_the_base_was_pretrained_with(change):
    events, user = histories(np.random.default_rng(0)), torch.tensor([7, 8, 9, 7])
    losses = []
    for config in (PinFMConfig.debug(), replace(PinFMConfig.debug(), **change)):
        torch.manual_seed(0)
        base = PinFM(config, 3).eval()
        states = base.decoder(base.tokens(base.events(base.embed(events.key_UL), events.action_UL, events.surface_UL)))
        losses.append(float(NextToken(COUNTS, POSITIVE, Ties.ORDERED, 1000)(base, states, events, user)))
    assert abs(losses[0] - losses[1]) > 0.01


def test_no_more_moments_are_drawn_than_asked_for_and_on_average_they_say_the_same():
    base, events, user = small_base(), histories(np.random.default_rng(0)), torch.tensor([1, 2, 3, 4])
    states = base.decoder(base.tokens(base.events(base.embed(events.key_UL), events.action_UL, events.surface_UL)))
    states = states.detach().requires_grad_()
    whole = NextToken(COUNTS, POSITIVE, Ties.ORDERED, positions=1000)(base, states, events, user)
    torch.manual_seed(0)
    some = NextToken(COUNTS, POSITIVE, Ties.ORDERED, positions=5)
    drawn = []
    for _ in range(200):
        loss = some(base, states, events, user)
        (gradient,) = torch.autograd.grad(loss, states)
        assert int((gradient.abs().sum(-1) > 0).sum()) <= 5
        drawn.append(float(loss.detach()))
    assert np.mean(drawn) == pytest.approx(float(whole.detach()), abs=4 * np.std(drawn) / np.sqrt(200))


def test_histories_without_a_positive_give_zero_and_every_weight_a_gradient():
    base = small_base()
    none = torch.zeros(2, 3, dtype=torch.int64)
    events = Events(none - 1, none, none, none, torch.tensor([0, 0]))
    loss = NextToken(COUNTS, POSITIVE, Ties.ORDERED, 9)(base, torch.zeros(2, 3, 32), events, torch.tensor([1, 2]))
    loss.backward()
    assert float(loss.detach()) == 0
    used = (*base.psi.parameters(), *base.phi_out.parameters(), base.temperature_logit)
    assert all(p.grad is not None for p in used)


def test_the_module_s_own_heads_are_ranked_and_aligned_as_written(make):
    recipe = make(module_loss=0.3, alignment_loss=0.7, sequence_loss=0.0)
    torch.manual_seed(0)
    model = recipe.build_model().eval()
    batch = next(iter(recipe.train_batches(Rank())))
    losses = {name: loss.detach() for name, loss in model(batch, recipe.criterion).items()}
    module = model.modules_by_name["pinfm"]
    own, final = module.heads(module.read(batch).features_BK).detach(), model(batch).detach()
    assert float(losses["pinfm/ranking"]) == pytest.approx(0.3 * float(recipe.criterion(own, batch)), rel=1e-5)
    apart = 0.0
    for b in range(len(batch)):
        for h in range(2):
            apart += (1 / (1 + math.exp(-own[b, h])) - 1 / (1 + math.exp(-final[b, h]))) ** 2
    assert float(losses["pinfm/alignment"]) == pytest.approx(0.7 * apart / (2 * len(batch)), rel=1e-5)
    assert float(losses["ranking"]) == pytest.approx(float(recipe.criterion(final, batch)), rel=1e-5)
    assert set(losses) == {"ranking", "pinfm/ranking", "pinfm/alignment"}
