"""TransAct (§3.2): a short transformer over [action ; item ; candidate] tokens of the user's newest actions.

Shapes: U requests, B candidates, L positions newest first, D item vector, E = action + item width, M token width.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.models.ranker.batch import RankingBatch, Sequence
from components.models.ranker.model import Reading, SequenceModule
from components.models.transact.config import TransActConfig
from components.models.transact.encoders import ENCODERS
from components.models.transact.readout import Readout
from components.nn.attention import EncoderLayer, fused_tokens
from components.nn.position import PositionEncoding

HOUR = 3_600_000_000
CANDIDATES = 256
"""Scored at a time where no gradient is asked for: their activations stay in the cache, which halves the time."""


class TransAct(SequenceModule):
    """Features of each candidate from the user's newest actions.

    Args:
        actions: size of the action vocabulary (index 0 is padding and not counted).
        positive: action indices that `positive_only` keeps.
        length: positions read.
    """

    keeps_A: Tensor

    def __init__(
        self, config: TransActConfig, *, actions: int, positive: tuple[int, ...], vector_dim: int, length: int
    ) -> None:
        super().__init__()
        self.config = config
        self.length = length
        action_dim = 0 if config.encoder == "vanilla" else config.action_dim
        width = vector_dim + action_dim
        self.concat = config.fusion == "concat" and config.encoder != "vanilla"
        self.append = config.fusion == "append" and config.encoder != "vanilla"
        dim = width + vector_dim * self.concat
        # One more row than actions and padding: the role of an appended candidate.
        self.action = nn.Embedding(1 + actions + self.append, action_dim, padding_idx=0) if action_dim else None
        keeps = torch.tensor([a in positive or not config.positive_only for a in range(1 + actions + self.append)])
        self.register_buffer("keeps_A", keeps, persistent=False)
        positions = length + self.append
        self.position = None if config.position == "none" else PositionEncoding(config.position, positions, dim)
        self.encoder = self._encoder(dim)
        self.readout = Readout(config, 1 if config.encoder == "average" else positions, dim)
        self.out_dim = self.readout.out_dim

    def _encoder(self, dim: int) -> nn.Module:
        c = self.config
        if c.encoder in ENCODERS:
            return ENCODERS[c.encoder](dim, c.layers)
        block = partial(EncoderLayer, dim, c.attention_heads, c.ffn, c.sequence_dropout, c.norm_first)
        return nn.ModuleList(block() for _ in range(c.layers))

    def read(self, batch: RankingBatch) -> Reading:
        return Reading(self(batch.sequence, batch.candidate_vector_BD, batch.row_of_B))

    def forward(self, sequence: Sequence, candidate_vector_BD: Tensor, row_of_B: Tensor) -> Tensor:
        """Returns [B, out_dim]; candidate b belongs to request row_of_B[b]."""
        vector, action, age = self._newest(sequence)
        padding = action == 0
        hidden = padding | (age < self._window(age.device))
        # A user without actions attends to one padded position: a defined answer instead of an empty softmax.
        hidden[:, 0] &= ~hidden.all(1) & (not self.config.keep_newest)
        padding[:, 0] = False
        shared = vector if self.action is None else torch.cat([self.action(action), vector], dim=-1)
        if self.concat or self.append:
            size = len(row_of_B) if torch.is_grad_enabled() else CANDIDATES
            parts = zip(candidate_vector_BD.split(size), row_of_B.split(size), strict=True)
            return torch.cat([self._encode(shared, vectors, hidden, padding, rows) for vectors, rows in parts])
        everyone = torch.arange(len(shared), device=shared.device)
        return self._encode(shared, candidate_vector_BD, hidden, padding, everyone)[row_of_B]

    def _newest(self, sequence: Sequence) -> tuple[Tensor, Tensor, Tensor]:
        """Item vectors [U, L, D], actions [U, L] and ages in µs [U, L] of the newest actions that are read."""
        vector, action = sequence.vector_ULD, sequence.action_UL
        age = sequence.request_time_U[:, None] - sequence.timestamp_UL
        if self.config.positive_only:
            order = (~self.keeps_A[action]).to(torch.uint8).argsort(dim=1, stable=True)
            action = torch.where(self.keeps_A[action], action, 0).gather(1, order)
            age, vector = age.gather(1, order), vector.gather(1, order[..., None].expand_as(vector))
        missing = self.length - action.shape[1]
        if self.config.public_module and missing > 0:
            vector = F.pad(vector, (0, 0, 0, missing))
            action, age = F.pad(action, (0, missing)), F.pad(age, (0, missing))
        return vector[:, : self.length], action[:, : self.length], age[:, : self.length]

    def _window(self, device: torch.device) -> Tensor:
        """T in µs: one draw for the whole batch while training, else 0 (ages are never negative)."""
        if not self.training:
            return torch.zeros((), device=device)
        return torch.rand((), device=device) * self.config.time_window_hours * HOUR

    def _encode(self, shared: Tensor, candidate: Tensor, hidden: Tensor, padding: Tensor, row_of: Tensor) -> Tensor:
        """Tokens through the encoder to the read-out; `hidden` and `padding` are [U, L]. Returns [B, out_dim]."""
        transformer = isinstance(self.encoder, nn.ModuleList)
        layers = [cast(EncoderLayer, layer) for layer in cast(nn.ModuleList, self.encoder)] if transformer else []
        if self.concat and layers and self.position is None:
            x = layers.pop(0).fused(shared, candidate, hidden, row_of)
            hidden, padding = hidden[row_of], padding[row_of]
        else:
            x, hidden, padding = self._tokens(shared, candidate, hidden[row_of], padding[row_of], row_of)
        if not transformer:
            x = self.encoder(x, padding)
        for number, layer in enumerate(layers, start=1):
            x = layer(x, hidden, self.readout.queries if number == len(layers) else None)
        return self.readout(x, padding[:, : x.shape[1]])

    def _tokens(
        self, shared: Tensor, candidate: Tensor, hidden: Tensor, padding: Tensor, row_of: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B, L, M] of the fusion, positions added, with their masks [B, L]."""
        if self.concat:
            x = fused_tokens(shared, candidate, row_of)
        elif self.append:
            assert self.action is not None
            role = self.action.weight[-1].expand(len(candidate), -1)
            x = torch.cat([torch.cat([role, candidate], dim=-1)[:, None], shared[row_of]], dim=1)
            hidden, padding = F.pad(hidden, (1, 0)), F.pad(padding, (1, 0))
        else:
            x = shared[row_of]
        return x if self.position is None else self.position(x), hidden, padding
