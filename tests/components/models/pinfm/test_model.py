"""The foundation model and its files."""

import json
from dataclasses import replace

import pytest
import torch

from components.errors import UserError
from components.models.pinfm.artifact import load_pinfm, save_pinfm, save_table
from components.models.pinfm.config import PinFMConfig
from components.models.pinfm.model import PinFM
from components.nn.hashed import Shard

CONFIG = PinFMConfig.debug()
ACTIONS = ("save", "hide", "impression")


def model(seed: int = 0, shard: Shard | None = None, **changes) -> PinFM:
    torch.manual_seed(seed)
    return PinFM(replace(CONFIG, **changes), len(ACTIONS), seed=seed, shard=shard).eval()


def sequences(users: int = 3, length: int = 10):
    rng = torch.Generator().manual_seed(1)
    key = torch.randint(0, 2**62, (users, length), generator=rng)
    action = torch.randint(1, 4, (users, length), generator=rng)
    surface = torch.randint(0, 5, (users, length), generator=rng) * 2 + 1
    return key, action, surface, torch.tensor([length, 4, 1])


def test_states_and_targets_have_length_one():
    pinfm, (key, action, surface, length) = model(), sequences()
    states, targets = pinfm.states(key, action, surface, length), pinfm.targets(pinfm.embed(key))
    assert states.shape == targets.shape == (3, 10, CONFIG.dim)
    torch.testing.assert_close(states[0].norm(dim=-1), torch.ones(10))
    torch.testing.assert_close(targets.norm(dim=-1), torch.ones(3, 10))


@pytest.mark.parametrize(("block", "position"), [("gpt2", "rotary"), ("gpt2", "learned"), ("hstu", "none")])
def test_a_state_is_a_function_of_its_event_and_those_before_it(block, position):
    """Equation 1, one prefix at a time."""
    pinfm, (key, action, surface, length) = model(block=block, position=position), sequences()
    whole = pinfm.states(key, action, surface, length)
    for u, last in enumerate(length.tolist()):
        for stop in range(1, last + 1):
            cut = (t[u : u + 1, :stop] for t in (key, action, surface))
            alone = pinfm.states(*cut, torch.tensor([stop]))
            torch.testing.assert_close(alone[0, -1], whole[u, stop - 1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("what", [0, 1, 2])
@torch.no_grad()
def test_item_action_and_surface_all_matter(what):
    pinfm, inputs = model(), list(sequences())
    for learned in (pinfm.action, pinfm.surface.table):
        learned.weight.normal_(std=0.1)
    before = pinfm.states(*inputs)[0, -1]
    inputs[what] = inputs[what].clone()
    inputs[what][0, 2] += 2 if what == 2 else 1
    assert not torch.allclose(pinfm.states(*inputs)[0, -1], before)


@torch.no_grad()
def test_an_untrained_event_is_its_item_and_a_layer_adds_the_mean_of_those_before():
    pinfm, (key, action, surface, length) = model(copy=3.0, layers=1), sequences()
    for silent in (pinfm.decoder.layers[0].qkv.weight[: 2 * CONFIG.dim], pinfm.decoder.layers[0].down.weight):
        silent.zero_()
    x = pinfm.targets(pinfm.embed(key))
    normed = torch.nn.functional.layer_norm(x, x.shape[-1:])
    mean = normed.cumsum(1) / torch.arange(1, 11)[:, None]
    added = torch.nn.functional.layer_norm(x + 3 * mean, x.shape[-1:])
    expected = torch.nn.functional.normalize(added, dim=-1)
    torch.testing.assert_close(pinfm.states(key, action, surface, length)[0], expected[0], atol=1e-5, rtol=1e-4)


def test_an_event_without_a_known_item_has_a_bounded_gradient():
    """It is exactly zero while actions and surfaces are."""
    pinfm = model()
    e = pinfm.embed(torch.full((1, 5), -1)).detach().requires_grad_()
    known = pinfm.embed(torch.arange(1, 6)[None]).detach().requires_grad_()
    for x in (e, known):
        (pinfm.tokens(pinfm.events(x, torch.ones(1, 5).long(), torch.ones(1, 5).long())).sum()).backward()
    assert not e.any()
    assert e.grad.norm() < 2e3 * known.grad.norm()
    assert all(p.grad.norm() < 1e5 for p in (pinfm.action.weight, pinfm.surface.table.weight))


def test_the_temperature_begins_where_it_is_told_and_stays_in_its_range():
    pinfm = model(temperature=0.07, temperature_range=(0.02, 0.5))
    assert float(pinfm.temperature.detach()) == pytest.approx(0.07)
    for far, end in ((1e4, 0.5), (-1e4, 0.02)):
        pinfm.temperature_logit.data.fill_(far)
        assert float(pinfm.temperature.detach()) == pytest.approx(end)


@pytest.mark.parametrize("written", [1, 2, 3])
def test_an_artifact_gives_the_same_states_however_many_ranks_wrote_it(tmp_path, written):
    pinfm = model()
    save_pinfm(tmp_path, pinfm, actions=ACTIONS, learned=(1, 2), trained_until=2)
    for rank in range(written):
        save_table(tmp_path, model(shard=Shard(rank, written)))
    torch.testing.assert_close(load_pinfm(tmp_path).states(*sequences()), pinfm.states(*sequences()))


def test_a_rank_reads_only_its_own_rows(tmp_path):
    save_pinfm(tmp_path, model(5), actions=ACTIONS, learned=(1, 2), trained_until=2)
    for rank in range(3):
        save_table(tmp_path, model(5, Shard(rank, 3)))
    whole = model(5).table.weight
    halves = [load_pinfm(tmp_path, shard=Shard(rank, 2)).table.weight for rank in range(2)]
    assert len(halves[0]) == len(halves[1]) == len(whole) // 2
    torch.testing.assert_close(torch.cat(halves), whole)


def test_files_that_are_missing_or_another_models_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no PinFM artifact"):
        load_pinfm(tmp_path)
    save_pinfm(tmp_path, model(), actions=ACTIONS, learned=(1, 2), trained_until=2)
    save_table(tmp_path, model(shard=Shard(0, 2)))
    with pytest.raises(UserError, match="1 files of the id table"):
        load_pinfm(tmp_path)


def test_weights_that_do_not_fit_the_description_are_refused(tmp_path):
    save_table(tmp_path, model())
    with pytest.raises(UserError, match="holds no PinFM"):
        load_pinfm(tmp_path)
    for wrong, match in (
        ({"heads": 1, "ffn": 32}, r"do not fit its description: decoder\.stack\.0\.down"),
        ({"rows": 400}, "holds 2000 rows of an id table of 1600"),
    ):
        save_pinfm(tmp_path, model(), actions=ACTIONS, learned=(1, 2), trained_until=2)
        said = json.loads((tmp_path / "artifact.json").read_text())
        said["config"].update(wrong)
        (tmp_path / "artifact.json").write_text(json.dumps(said))
        with pytest.raises(UserError, match=match):
            load_pinfm(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load_pinfm(tmp_path)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"temperature": 2.0}, "temperature 2.0"),
        ({"table_optimizer": "sgd"}, "table_optimizer"),
        ({"downstream": 128}, "downstream is 128"),
        ({"block": "lstm"}, "block is 'lstm'"),
        ({"heads": 3}, "does not divide into 3 heads"),
        ({"next_token": 0.0, "multi_token": 0.0, "future_token": 0.0}, "weigh nothing"),
    ],
)
def test_configurations_that_mean_nothing_are_refused(fields, match):
    with pytest.raises(UserError, match=match):
        PinFMConfig(**fields)
