"""Parity with Pinterest's public module, whose behaviour the slow twin below restates with PyTorch's own layers."""

import pytest
import torch
from torch import nn

from components.errors import UserError
from components.models.ranker.batch import Sequence
from components.models.transact.public_module import MILLISECOND, action_rows, load_public_module

VOCABULARY, LENGTH, DIM = [3, 0, 7, 12], 12, 8


class PublicTwin(nn.Module):
    """The public module's forward pass for a given window, in milliseconds (its parameter names)."""

    def __init__(self, heads: int, latest: int) -> None:
        super().__init__()
        self.latest = latest
        self.register_buffer("action_type_lookup", torch.zeros(100, dtype=torch.long))
        for index, word in enumerate(sorted(VOCABULARY)):
            self.action_type_lookup[word + 1] = index
        self.action_emb_module = nn.Embedding(len(VOCABULARY), DIM, padding_idx=0)
        block = nn.TransformerEncoderLayer(3 * DIM, heads, 16, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.out_linear = nn.Linear(3 * DIM, 3 * DIM)

    def forward(self, action, item, time, request_time, candidate, window_ms=0):
        action = self.action_type_lookup[action + 1]
        hidden = (action <= 0) | (request_time[:, None] - time < window_ms)
        hidden[:, 0] = False
        fused = candidate[:, None].expand(-1, action.shape[1], -1)
        tokens = torch.cat([self.action_emb_module(action), item, fused], dim=2)
        out = self.transformer_encoder(
            tokens, src_key_padding_mask=torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)
        )
        return torch.cat([self.out_linear(out.max(dim=1).values), out[:, : self.latest].flatten(1)], dim=1)


def inputs(batch=6):
    torch.manual_seed(1)
    action = torch.tensor([-1, *VOCABULARY])[torch.randint(5, (batch, LENGTH))]
    action[0] = -1  # a user without actions
    time = torch.randint(0, 5_000, (batch, LENGTH)).sort(dim=1, descending=True).values
    return action, torch.randn(batch, LENGTH, DIM), time, torch.full((batch,), 6_000), torch.randn(batch, DIM)


def ours_of(module, action, item, time, request_time, candidate):
    rows = action_rows(action, VOCABULARY)
    unread = torch.zeros_like(rows)
    sequence = Sequence(item, unread, rows, time * MILLISECOND, unread, request_time * MILLISECOND)
    return module(sequence, candidate, torch.arange(len(candidate)))


@pytest.mark.parametrize("heads", [1, 2])
def test_the_public_weights_give_the_public_outputs(heads):
    torch.manual_seed(0)
    twin = PublicTwin(heads, latest=5).eval()
    module = load_public_module(twin.state_dict(), heads=heads, latest=5, length=LENGTH).eval()
    torch.testing.assert_close(ours_of(module, *inputs()), twin(*inputs()), rtol=1e-4, atol=1e-5)


def test_the_window_hides_in_training_what_the_public_module_hides(monkeypatch):
    torch.manual_seed(0)
    twin = PublicTwin(2, latest=5).eval()
    module = load_public_module(twin.state_dict(), latest=5, length=LENGTH).eval()
    monkeypatch.setattr(module, "_window", lambda device: torch.tensor(3_000 * MILLISECOND))
    windowed = ours_of(module, *inputs())
    torch.testing.assert_close(windowed, twin(*inputs(), window_ms=3_000), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(windowed, twin(*inputs()))


def test_the_first_word_of_the_vocabulary_is_padding():
    assert action_rows(torch.tensor([-1, 0, 3, 7, 12]), VOCABULARY).tolist() == [0, 0, 1, 2, 3]


def test_other_weights_are_refused():
    with pytest.raises(UserError, match="no weights of the public TransAct module"):
        load_public_module({"weight": torch.zeros(1)})
