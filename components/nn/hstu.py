"""HSTU, the hierarchical sequential transduction unit (Zhai et al., "Actions Speak Louder than Words", ICML 2024,
Eqs. 1-3): one projection, pointwise attention with a bias by distance, a gate in place of the FFN.

    U, Q, K, V = SiLU(W₁ norm(x) + b₁),   A = SiLU(Q Kᵀ / √E + bias) / n,   y = x + W₂ (norm(A V) ⊙ U) + b₂

No softmax: weights do not add up to 1, and each depends on its own key alone. n is the number of keys that a query
sees; the authors divide by the longest length there is, which the norm behind it makes the same but for its ε. 1 / √E
and rotation are ours. Their bias by the time between events is not here: PinFM reads no times.

Shapes as in `decoder_layer`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.nn.decoder_layer import DecoderConfig, DecoderLayer, Projected, Rotation, rotate
from components.nn.linear import Linear, linear

OPEN = 1.2784645
"""SiLU of it is 1: the bias of a gate that lets all through."""


class HSTULayer(DecoderLayer):
    """
    Attributes:
        bias: of a key by its distance before the query, [max_length]. It begins at 1, where SiLU weighs all keys alike:
            at 0 nothing would be seen.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        dim = config.dim
        self.norm, self.mixed_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.uqkv, self.out = Linear(dim, 4 * dim), Linear(dim, dim)
        self.bias = nn.Parameter(torch.ones(config.max_length))

    @property
    def adds(self) -> tuple[Linear, ...]:
        return (self.out,)

    def project(self, x: Tensor, rotation: Rotation) -> Projected:
        projected = F.silu(self.uqkv(self.norm(x)))
        gate, qkv = projected.split([x.shape[-1], 3 * x.shape[-1]], dim=-1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return Projected(rotate(q, rotation), rotate(k, rotation), v, gate)

    def project_context(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        first = 2 * x.shape[-1]
        projected = F.silu(linear(self.norm(x), self.uqkv.weight[first:], self.uqkv.bias[first:]))
        k, v = projected.unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return rotate(k, rotation), v

    def attend(self, q_ULHE: Tensor, k_ULHE: Tensor, v_ULHE: Tensor, seen_ULL: Tensor | None = None) -> Tensor:
        place = torch.arange(q_ULHE.shape[1], device=q_ULHE.device)
        before_LL = place[:, None] - place
        if seen_ULL is None:
            seen_ULL = (before_LL >= 0)[None]
        q, k, v = (t.transpose(1, 2) for t in (q_ULHE, k_ULHE, v_ULHE))
        weights_UHLL = pointwise(q, k, self.bias[before_LL.clamp(min=0)]) * seen_ULL[:, None]
        return (weights_UHLL @ v).transpose(1, 2) / seen_ULL.sum(-1)[..., None, None]

    def finish(self, x: Tensor, mixed: Tensor, gate: Tensor | None) -> Tensor:
        return self._add(x, self.out, self.mixed_norm(mixed.flatten(-2)) * gate)

    @torch.no_grad()
    def begin_by_copying(self, factor: float) -> None:
        """With an open gate. SiLU keeps half of what it is given, and the norm behind it drops the rest that all
        dimensions have in common. It also makes what is added always as long, `factor` · √D, in the direction of the
        mean alone."""
        dim = self.out.in_features
        self.uqkv.weight[:dim], self.uqkv.bias[:dim] = 0.0, OPEN
        self._copy(self.uqkv, self.out, factor)


def pointwise(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """SiLU(q kᵀ / √E + bias), not yet divided by n: q [..., m, E] and k [..., n, E] → [..., m, n]."""
    return F.silu(q @ k.mT * q.shape[-1] ** -0.5 + bias)
