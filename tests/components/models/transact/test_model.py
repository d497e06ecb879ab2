"""The module: what it sees, what it must not see, and every ablation."""

from dataclasses import replace

import pytest
import torch

from components.errors import UserError
from components.models.ranker.batch import Sequence
from components.models.transact.config import ABLATIONS, BASELINES, CHOICES, TransActConfig
from components.models.transact.model import CANDIDATES, HOUR, TransAct

LENGTH, DIM, USERS = 12, 8, 3
SMALL = TransActConfig(action_dim=8, ffn=16, first_k=4)


def module(config=SMALL, **changes):
    torch.manual_seed(0)
    config = replace(config, **changes).effective()
    return TransAct(config, actions=3, positive=(1,), vector_dim=DIM, length=LENGTH).eval()


def sequence(lengths=(12, 5, 0)):
    torch.manual_seed(1)
    real = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
    ages = (torch.rand(USERS, LENGTH).cumsum(1) * 6 * HOUR).long()
    return Sequence(
        vector_ULD=torch.randn(USERS, LENGTH, DIM) * real[..., None],
        item_key_UL=torch.full((USERS, LENGTH), -1),
        action_UL=torch.randint(1, 4, (USERS, LENGTH)) * real,
        timestamp_UL=(10**15 - ages) * real,
        surface_UL=torch.zeros(USERS, LENGTH, dtype=torch.int64),
        request_time_U=torch.full((USERS,), 10**15),
    )


def candidates(n=7):
    torch.manual_seed(2)
    return torch.randn(n, DIM), torch.randint(USERS, (n,)).sort().values


def cut(s, length):
    return replace(
        s,
        vector_ULD=s.vector_ULD[:, :length],
        item_key_UL=s.item_key_UL[:, :length],
        action_UL=s.action_UL[:, :length],
        timestamp_UL=s.timestamp_UL[:, :length],
        surface_UL=s.surface_UL[:, :length],
    )


CHANGES = [
    {},
    *(change for name, change in ABLATIONS.items() if name != "noseq"),  # without a sequence there is no module
    {"norm_first": True},
    {"attention_heads": 2},
    {"positive_only": True},
    {"layers": 4},
]


def test_every_choice_of_the_paper_is_an_ablation_of_one_field():
    assert all(len(change) == 1 for change in ABLATIONS.values())
    default = TransActConfig()
    rivals = {
        (field, value)
        for field in ("sequence", "fusion", "encoder", "position", "readout")
        for value in CHOICES[field]
        if value != getattr(default, field) and (field, value) != ("fusion", "none")  # what WDL fixes
    }
    assert {next(iter(change.items())) for change in ABLATIONS.values()} == rivals | {("time_window_hours", 0.0)}


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_ablation_is_one_value_and_trains(change):
    made, (vectors, rows) = module(**change), candidates()
    out = made.train()(sequence(), vectors, rows)
    assert out.shape == (7, made.out_dim)
    assert bool(torch.isfinite(out).all())
    out.square().sum().backward()
    assert not [n for n, p in made.named_parameters() if p.grad is None]


@pytest.mark.parametrize("change", [c for c in CHANGES if c.get("encoder") not in ("rnn", "lstm")], ids=str)
def test_padding_changes_nothing(change):
    made, (vectors, rows) = module(**change), candidates()
    short = sequence((5, 3, 0))
    torch.testing.assert_close(made(short, vectors, rows), made(cut(short, 5), vectors, rows), rtol=1e-4, atol=1e-5)


def test_candidates_of_a_request_share_its_history_exactly():
    made, (vectors, rows), s = module(), candidates(), sequence()
    alone = [
        made(
            Sequence(*(getattr(s, f)[u : u + 1] for f in vars(s))), vectors[i : i + 1], torch.zeros(1, dtype=torch.long)
        )
        for i, u in enumerate(rows.tolist())
    ]
    torch.testing.assert_close(made(s, vectors, rows), torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_scoring_many_candidates_piece_by_piece_changes_nothing():
    made, s = module(), sequence()
    vectors, rows = candidates(2 * CANDIDATES + 3)
    at_once = made(s, vectors, rows)
    with torch.no_grad():
        torch.testing.assert_close(made(s, vectors, rows), at_once.detach())


def test_without_positions_the_order_beyond_the_first_k_is_no_information():
    made, (vectors, rows), s = module(), candidates(), sequence((12, 12, 12))
    order = torch.cat([torch.arange(4), 4 + torch.randperm(8)])
    shuffled = replace(
        s,
        vector_ULD=s.vector_ULD[:, order],
        action_UL=s.action_UL[:, order],
        timestamp_UL=s.timestamp_UL[:, order],
    )
    torch.testing.assert_close(made(shuffled, vectors, rows), made(s, vectors, rows), rtol=1e-4, atol=1e-5)


def test_the_time_window_hides_recent_actions_in_training_only(monkeypatch):
    made, (vectors, rows), s = module(sequence_dropout=0.0), candidates(), sequence((12, 12, 12))
    evaluated = made(s, vectors, rows)
    torch.testing.assert_close(made(s, vectors, rows), evaluated, rtol=0, atol=0)
    monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.tensor(0.0))
    torch.testing.assert_close(made.train()(s, vectors, rows), evaluated)
    monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.tensor(0.5))
    assert not torch.allclose(made(s, vectors, rows), evaluated)


def test_a_hidden_action_is_seen_by_no_other_and_the_newest_always(monkeypatch):
    made, (vectors, rows), s = module(readout="first", sequence_dropout=0.0), candidates(), sequence((12, 12, 12))
    monkeypatch.setattr(made, "_window", lambda device: torch.tensor(10**15))  # all are too young
    before = made(s, vectors, rows)
    other = s.vector_ULD.clone()
    other[:, 1:] += 1
    torch.testing.assert_close(made(replace(s, vector_ULD=other), vectors, rows), before)
    other[:, 0] += 1
    assert not torch.allclose(made(replace(s, vector_ULD=other), vectors, rows), before)


def test_the_window_is_drawn_from_torchs_generator():
    made = module().train()
    torch.manual_seed(5)
    first = made._window(torch.device("cpu"))
    torch.manual_seed(5)
    assert made._window(torch.device("cpu")) == first
    assert 0 <= float(first) <= 24 * HOUR


def test_positive_only_reads_what_it_would_read_of_a_filtered_history():
    made, (vectors, rows), s = module(positive_only=True), candidates(), sequence((12, 12, 12))
    kept = [s.action_UL[u] == 1 for u in range(USERS)]
    length = max(int(k.sum()) for k in kept)

    def filtered(values):
        out = values.new_zeros(USERS, length, *values.shape[2:])
        for u, k in enumerate(kept):
            out[u, : int(k.sum())] = values[u][k]
        return out

    short = replace(
        s,
        vector_ULD=filtered(s.vector_ULD),
        action_UL=filtered(s.action_UL),
        timestamp_UL=filtered(s.timestamp_UL),
        surface_UL=filtered(s.surface_UL),
    )
    torch.testing.assert_close(made(s, vectors, rows), made(short, vectors, rows), rtol=1e-4, atol=1e-5)


def slow_readout(kind, x, real, columns, linear):
    """One row at a time. x [L, D], real [L]."""
    chosen = [x[c] if real[c] else torch.zeros_like(x[0]) for c in ([] if columns is None else columns.tolist())]
    pooled = [linear(x[real].max(0).values)] if linear is not None else []
    return torch.cat([*pooled, *chosen])


@pytest.mark.parametrize("kind", CHOICES["readout"])
def test_read_outs_equal_one_row_at_a_time(kind):
    readout = module(readout=kind).readout
    x, padding = torch.randn(3, LENGTH, 24), torch.arange(LENGTH) >= torch.tensor([12, 5, 1])[:, None]
    expected = [slow_readout(kind, x[b], ~padding[b], readout.columns, readout.linear) for b in range(3)]
    torch.testing.assert_close(readout(x, padding), torch.stack(expected))


def test_table_one_rivals_are_values_of_one_field():
    assert set(BASELINES) == set(CHOICES["sequence"])
    bst = TransActConfig(sequence="bst_positive").effective()
    assert (bst.fusion, bst.position, bst.positive_only, bst.layers) == ("append", "learned", True, 1)


def test_a_value_that_no_field_knows_is_refused():
    with pytest.raises(UserError, match="readout is 'last'"):
        TransActConfig(readout="last")
