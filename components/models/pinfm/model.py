"""PinFM: a causal decoder over id-only events, H = φ_out(M(φ_in(E + V + A))) (Eq. 1), and its item tower z = ψ(E).

Shapes: U sequences of L events, oldest first, padding behind; E width of an id's embedding, D of the model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.models.pinfm.config import PinFMConfig
from components.models.pinfm.data import SegmentBatch
from components.nn.decoder import CausalDecoder
from components.nn.embedding import HashedEmbedding
from components.nn.hashed import HashedTables, Shard

SHORTEST = 1e-3
"""Length below which a vector is not made one of length 1. An untrained event without a known item is 0, where the
gradient of the division is as large as the inverse of this."""


class UnitMLP(nn.Module):
    """A pointwise MLP beside a linear path; their sum has length 1.

    It begins as that path alone: without the path an item that comes again looks different at the output until training
    has brought it there, and an untrained MLP's biases make all items alike.
    """

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        last = nn.Linear(dim, dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(inputs, dim), nn.GELU(), last)
        self.straight = nn.Identity() if inputs == dim else nn.Linear(inputs, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] → [..., dim]."""
        return F.normalize(self.straight(x) + self.layers(x), dim=-1, eps=SHORTEST)


class PinFM(nn.Module):
    """The foundation model. `states` runs it whole; the other methods are its parts, in their order.

    Args:
        actions: size of the action vocabulary; an action is its index in the contract from 1, 0 = none (a candidate).
        shard: rows of the id table that are here.
        sparse: the id table's gradients name only the rows that were looked up.
    """

    def __init__(
        self, config: PinFMConfig, actions: int, *, shard: Shard | None = None, sparse: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.actions = config, actions
        self.table = HashedTables(config.tables, config.rows, config.width, sparse=sparse, seed=seed, shard=shard)
        width = self.table.dim
        self.action = nn.Embedding(1 + actions, width)
        self.surface = HashedEmbedding(config.surfaces, width)
        # An event begins as its item: what all events share would drown what they do not.
        nn.init.zeros_(self.action.weight)
        nn.init.zeros_(self.surface.table.weight)
        self.phi_in = UnitMLP(width, config.dim)
        self.decoder = CausalDecoder(config.decoder)
        for layer in self.decoder.layers if config.copy else ():
            layer.begin_by_copying(config.copy)
        self.phi_out = UnitMLP(config.dim, config.dim)
        self.psi = UnitMLP(width, config.dim)
        # An item begins as much alike as input and as target.
        self.psi.load_state_dict(self.phi_in.state_dict())
        low, high = config.temperature_range
        self.temperature_logit = nn.Parameter(torch.logit(torch.tensor((config.temperature - low) / (high - low))))

    def embed(self, key: Tensor) -> Tensor:
        """emb(id): int64 `components.history.keys.key` [...], < 0 = none → [..., E]."""
        out: Tensor = self.table(key)
        return out

    def events(self, e: Tensor, action: Tensor, surface: Tensor) -> Tensor:
        """E + V + A: embedded ids [..., E], int64 action indices and `id_hash` of surfaces [...] → [..., E]."""
        out: Tensor = e + self.surface(surface) + self.action(action)
        return out

    def tokens(self, x: Tensor) -> Tensor:
        """φ_in, the decoder's input: [..., E] → [..., D], length 1."""
        out: Tensor = self.phi_in(x)
        return out

    def outputs(self, h: Tensor) -> Tensor:
        """φ_out, after the decoder: [..., D] → [..., D], length 1."""
        out: Tensor = self.phi_out(h)
        return out

    def targets(self, e: Tensor) -> Tensor:
        """ψ, what states are compared with: embedded ids [..., E] → z [..., D], length 1."""
        out: Tensor = self.psi(e)
        return out

    def states(self, key_UL: Tensor, action_UL: Tensor, surface_UL: Tensor, length_U: Tensor) -> Tensor:
        """H [U, L, D]: what each event and those before it say of what follows. States of padding mean nothing."""
        return self._states(self.embed(key_UL), action_UL, surface_UL, length_U)

    def _states(self, e_ULE: Tensor, action_UL: Tensor, surface_UL: Tensor, length_U: Tensor) -> Tensor:
        x_ULD = self.tokens(self.events(e_ULE, action_UL, surface_UL))
        return self.outputs(self.decoder(x_ULD, length_U))

    def forward(self, batch: SegmentBatch) -> tuple[Tensor, Tensor, Tensor]:
        """For training: states of the positions that predict [P, D], targets of the batch's positives [C, D], and τ."""
        e_NE = self.embed(batch.key_N)
        e_ULE = F.embedding(batch.event_UL, e_NE)
        h_ULD = self._states(e_ULE, batch.action_UL, batch.surface_UL, batch.length_U)
        h_PD = h_ULD.flatten(0, 1).index_select(0, batch.source_P)
        return h_PD, self.targets(e_NE.index_select(0, batch.candidate_C)), self.temperature

    @property
    def temperature(self) -> Tensor:
        """τ, learned within its range."""
        low, high = self.config.temperature_range
        return low + (high - low) * torch.sigmoid(self.temperature_logit)
