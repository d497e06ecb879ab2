"""PinFM as a sequence module of the host ranker (section 3.3), run by DCAT (section 3.4).

Shapes: R requests, U different histories of L events, B candidates, E width of an id's embedding, D of PinFM.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.history.schema import FeatureSchema
from components.models.pinfm.model import PinFM
from components.models.pinfm_ranker.config import PinFMRankerConfig
from components.models.pinfm_ranker.objective import Events, NextToken, alignment
from components.models.ranker.batch import RankingBatch
from components.models.ranker.model import Reading, SequenceModule
from components.models.ranker.objective import RankingLoss
from components.nn.hashed import Shard
from components.serving.dcat import Context, ContextCache, cross, encode_context, fingerprint, unique

WEEK, MONTH = 7.0, 28.0
"""Ages in days below which dropout is stronger (section 3.3)."""

TABLE = "base.table.weight"
BLOCK = 65_536
"""Rows of the id table that are quantised at a time."""


class PinFMModule(SequenceModule):
    """Features of each candidate from the user's newest events and what everybody's events have taught."""

    def __init__(self, config: PinFMRankerConfig, schema: FeatureSchema) -> None:
        super().__init__()
        assert config.pinfm is not None
        self.config = config
        self.base = PinFM(config.pinfm, len(schema.actions), shard=Shard())
        dim, self.early = config.pinfm.dim, config.pinfm_fusion == "early"
        self.events = min(config.pinfm_events, config.pinfm.length, schema.sequence_length)
        self.out_dim = dim + self.base.table.dim * self.early
        graph = config.graph if self.early else "none"
        self.graph = nn.Linear(schema.vector_dim, dim) if graph != "none" else None
        self.token = nn.Parameter(F.normalize(torch.randn(dim), dim=0)) if graph == "vector+token" else None
        self.heads = nn.Linear(self.out_dim, len(schema.heads)) if config.module_loss else None
        self.gate = nn.Parameter(torch.zeros(self.out_dim)) if config.gate else None
        self.next_token: NextToken | None = None
        self.cache: ContextCache | None = None
        self._leave_alone()

    def _leave_alone(self) -> None:
        """What is frozen, or has no part in what is computed, gets no gradient: DDP waits for all that may have one."""
        base, config = self.base, self.config
        base.requires_grad_(config.base != "frozen")
        if not config.sequence_loss:
            base.psi.requires_grad_(False)
            base.temperature_logit.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.base.train(mode and self.config.base != "frozen")
        return self

    def learning_rates(self) -> list[tuple[float, list[nn.Parameter]]]:
        return [(self.config.pinfm_learning_rate, list(self.base.parameters()))]

    def remember(self, limit_bytes: int) -> None:
        self.cache = ContextCache(limit_bytes) if limit_bytes else None

    # -- the id table as it is served --------------------------------------------------------------

    def export_own(self, folder: Path) -> set[str]:
        if self.config.table_bits == 32:
            return set()
        from components.serving.tables import QuantisedTable  # compiles kernels, which few need

        weight = self.base.table.weight.detach().cpu()
        blocks = (block.numpy() for block in weight.split(BLOCK))
        QuantisedTable.write(folder, blocks, rows=len(weight), bits=self.config.table_bits)
        return {TABLE}

    def load_own(self, folder: Path) -> set[str]:
        if self.config.table_bits == 32:
            return set()
        from components.serving.tables import QuantisedTable

        self.base.table.read_from(QuantisedTable.open(folder).gather)
        return {TABLE}

    # -- reading ---------------------------------------------------------------------------------

    def read(self, batch: RankingBatch) -> Reading:
        """Equal histories run once (Ψ), candidates cross them in their groups, and go back to their places (Ψ⁻¹)."""
        events = Events.newest(batch, self.events, daily=self.config.daily)
        same = unique(events.key_UL, events.action_UL, events.surface_UL, events.time_UL)
        events, user_U = events.rows(same.first_U), batch.user_hash_U[same.first_U]
        wants_states = not self.early or (self.training and self.next_token is not None)
        context = self._context(events, user_U, wants_states)
        if self.early:
            features_BK = self._early(batch, context, *same.group(batch.row_of_B))
        else:
            features_BK = self._lite(context, events.length_U)[same.unique_of_R[batch.row_of_B]]
        if self.training:
            features_BK = self._fresh_dropout(features_BK, batch.candidate_age_B)
        gated_BK = features_BK if self.gate is None else features_BK * self.gate
        return PinFMReading(gated_BK, features_BK, self, context, events, user_U)

    def _context(self, events: Events, user_U: Tensor, states: bool) -> Context:
        def encode(some: Tensor) -> Context:
            part = events.rows(some)
            e = self.base.embed(part.key_UL)
            x_ULD = self.base.tokens(self.base.events(e, part.action_UL, part.surface_UL))
            context = encode_context(self.base.decoder, x_ULD, part.length_U, states=states)
            return context if self.early else context.states_alone()

        if self.cache is None or torch.is_grad_enabled():
            return encode(torch.arange(len(user_U), device=user_U.device))
        lengths = events.length_U.tolist()
        columns = (events.key_UL, events.action_UL, events.surface_UL)
        of = [fingerprint(*(c[u, :length] for c in columns)) for u, length in enumerate(lengths)]
        return self.cache.contexts(user_U.tolist(), of, lambda missing: encode(torch.tensor(missing)))

    def _early(self, batch: RankingBatch, context: Context, order: Tensor, unique_of: Tensor) -> Tensor:
        """The candidate's output behind the history, and its id's embedding. [B, D + E]."""
        key_B = self._random(batch.candidate_key_B) if self.training else batch.candidate_key_B
        e_BE = self.base.embed(key_B)
        x_BSD = self.candidate_tokens(batch, e_BE)
        h_BD = self.base.outputs(cross(self.base.decoder, context, x_BSD[order], unique_of, slots=self.config.slots))
        return torch.cat([h_BD[torch.argsort(order)], e_BE], dim=-1)

    def candidate_tokens(self, batch: RankingBatch, e_BE: Tensor) -> Tensor:
        """What of each candidate stands behind the history: the learnable token, if there is one, and its own.

        Returns [B, S, D].
        """
        no_action_B = torch.zeros_like(batch.candidate_key_B)
        x_BD = self.base.tokens(self.base.events(e_BE, no_action_B, batch.candidate_surface_B))
        if self.graph is not None:
            x_BD = x_BD + self.graph(batch.candidate_vector_BD)
        if self.token is None:
            return x_BD[:, None]
        return torch.stack([self.token.to(x_BD.dtype).expand_as(x_BD), x_BD], dim=1)

    def _lite(self, context: Context, length_U: Tensor) -> Tensor:
        """Mean or last output of each history, zero without one. [U, D]."""
        assert context.state_ULD is not None
        place = torch.arange(context.state_ULD.shape[1], device=length_U.device)
        if self.config.pinfm_fusion == "lite_last":
            weight_UL = (place == length_U[:, None] - 1).float()
        else:
            weight_UL = (place < length_U[:, None]) / length_U[:, None].clamp(min=1)
        return (self.base.outputs(context.state_ULD) * weight_UL[..., None]).sum(1)

    def _random(self, key_B: Tensor) -> Tensor:
        """CIR: some ids replaced by ids that no item has, as new items' are."""
        random = torch.randint(0, 2**63 - 1, key_B.shape, device=key_B.device)
        return torch.where(torch.rand(key_B.shape, device=key_B.device) < self.config.random_candidates, random, key_B)

    def _fresh_dropout(self, features_BK: Tensor, age_B: Tensor) -> Tensor:
        """IDD: dropout whose rate depends on the age of the item."""
        config = self.config
        rate_B = torch.where(age_B < WEEK, config.dropout_7d, torch.where(age_B < MONTH, config.dropout_28d, 0.0))
        kept = torch.rand_like(features_BK, dtype=torch.float32) >= rate_B[:, None]
        return features_BK * kept / (1 - rate_B[:, None])


@dataclass(frozen=True)
class PinFMReading(Reading):
    """Features of a batch, and what the module's losses need beside them.

    Attributes:
        own_BK: the features as they are before the gate.
    """

    own_BK: Tensor
    module: PinFMModule
    context: Context
    events: Events
    user_U: Tensor

    def losses(self, logits_BH: Tensor, batch: RankingBatch, criterion: RankingLoss) -> dict[str, Tensor]:
        module, found = self.module, {}
        if module.heads is not None:
            own_BH = module.heads(self.own_BK)
            found["ranking"] = module.config.module_loss * criterion(own_BH, batch)
            if module.config.alignment_loss:
                found["alignment"] = module.config.alignment_loss * alignment(own_BH, logits_BH)
        if module.next_token is not None and self.context.state_ULD is not None:
            loss = module.next_token(module.base, self.context.state_ULD, self.events, self.user_U)
            found["sequence"] = module.config.sequence_loss * loss
        return found
