"""Transformer encoder layers with the parameter names of `nn.TransformerEncoderLayer`.

Two things PyTorch's own layer cannot do, both exact: compute only the first queries of a layer, and run the first
layer on tokens that are [shared by a request ; constant over the sequence] without projecting every candidate's
copy of the shared part.

Shapes: U requests, B candidates, L positions, D model width, E shared width, C constant width, H heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.nn.dropout import ByteDropout
from components.nn.linear import Linear


class SelfAttention(nn.Module):
    """Multi-head self-attention; parameters named as in `nn.MultiheadAttention`."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        self.dropout = ByteDropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def _split(self, x: Tensor) -> Tensor:
        """[N, L, D] → [N, H, L, D/H]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x_BLD: Tensor, hidden: Tensor, queries: int | None = None) -> Tensor:
        """Attend. `hidden` is True where a key is hidden: [B, L], or [1, L, L] by query and key (causal masks).

        Returns [B, Q, D] of the first Q = `queries` positions (default all).
        """
        dim = x_BLD.shape[-1]
        q = F.linear(x_BLD[:, :queries], self.in_proj_weight[:dim], self.in_proj_bias[:dim])
        kv = F.linear(x_BLD, self.in_proj_weight[dim:], self.in_proj_bias[dim:])
        k, v = kv.chunk(2, dim=-1)
        logits = self._split(q) @ self._split(k).transpose(-1, -2) / math.sqrt(dim // self.heads)
        mask = hidden[:, None, :queries] if hidden.ndim == 3 else hidden[:, None, None]
        return self._mix(logits.masked_fill(mask, -math.inf), self._split(v))

    def fused(self, shared_ULE: Tensor, constant_BC: Tensor, hidden_UL: Tensor, row_of_B: Tensor) -> Tensor:
        """As `forward` on tokens [shared[row_of] ; constant], projecting the shared part once per request.

        With q_i = s_i + c and k_j = s'_j + c', a logit is s_i·s'_j + c·s'_j + terms without j, which the softmax
        cancels; and since attention weights sum to 1, the constant part of the values passes through.
        """
        width, dim = shared_ULE.shape[-1], self.in_proj_weight.shape[1]
        q_s, k_s, v_s = F.linear(shared_ULE, self.in_proj_weight[:, :width], self.in_proj_bias).chunk(3, dim=-1)
        q_c, _, v_c = F.linear(constant_BC, self.in_proj_weight[:, width:]).chunk(3, dim=-1)
        scale = 1 / math.sqrt(dim // self.heads)
        keys = self._split(k_s)
        within = (self._split(q_s) @ keys.transpose(-1, -2) * scale).masked_fill(hidden_UL[:, None, None], -math.inf)
        to_key = torch.einsum("bhd,bhld->bhl", q_c.unflatten(-1, (self.heads, -1)), keys[row_of_B]) * scale
        logits = within[row_of_B] + to_key[:, :, None]
        return self._mix(logits, self._split(v_s)[row_of_B], self._split(v_c[:, None]))

    def _mix(self, logits: Tensor, values: Tensor, constant: Tensor | float = 0.0) -> Tensor:
        weights = self.dropout(torch.softmax(logits, dim=-1))
        if isinstance(constant, Tensor) and self.training:
            mixed = weights @ values + weights.sum(-1, keepdim=True) * constant
        else:
            mixed = weights @ values + constant
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class SingleHeadAttention(SelfAttention):
    """`SelfAttention` with one head, in fewer products: equal to it up to rounding.

    One head alone has q·k = x (W_qᵀ W_k) y and a mixture of values that W_o follows directly: two products of weights
    replace two projections of every token.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__(dim, 1, dropout)

    def _merged(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(query map [D, D], its bias [D], value map [D, D], its bias [D]); the logits' scale is in the first two."""
        w_q, w_k, w_v = self.in_proj_weight.chunk(3)
        b_q, _, b_v = self.in_proj_bias.chunk(3)
        keys = w_k / math.sqrt(len(w_k))
        out = self.out_proj.weight
        return keys.T @ w_q, b_q @ keys, out @ w_v, out @ b_v

    def forward(self, x_BLD: Tensor, hidden: Tensor, queries: int | None = None) -> Tensor:
        query, query_bias, value, value_bias = self._merged()
        q = F.linear(x_BLD[:, :queries], query, query_bias)
        mask = _additive(hidden if hidden.ndim == 3 else hidden[:, None], q)[:, :queries]
        logits = torch.baddbmm(mask, q, x_BLD.transpose(1, 2))
        weights = self.dropout(torch.softmax(logits, dim=-1))
        return weights @ F.linear(x_BLD, value, value_bias) + self.out_proj.bias

    def fused(self, shared_ULE: Tensor, constant_BC: Tensor, hidden_UL: Tensor, row_of_B: Tensor) -> Tensor:
        width = shared_ULE.shape[-1]
        query, query_bias, value, value_bias = self._merged()
        q = F.linear(shared_ULE, query[:width, :width], query_bias[:width])
        within = torch.baddbmm(_additive(hidden_UL[:, None], q), q, shared_ULE.transpose(1, 2))
        asked = F.linear(constant_BC, query[:width, width:])[:, None]
        to_key = asked @ shared_ULE.index_select(0, row_of_B).transpose(1, 2)
        weights = self.dropout(torch.softmax(within.index_select(0, row_of_B) + to_key, dim=-1))
        values = F.linear(shared_ULE, value[:, :width], value_bias).index_select(0, row_of_B)
        constant = F.linear(constant_BC, value[:, width:])[:, None]
        if self.training:
            constant = weights.sum(-1, keepdim=True) * constant
        return weights @ values + (constant + self.out_proj.bias)


def _additive(hidden: Tensor, like: Tensor) -> Tensor:
    """0 where a key is seen, −inf where it is hidden, in the type of `like`."""
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill(hidden, -math.inf)


class EncoderLayer(nn.Module):
    """Post-norm (`norm_first=False`) or pre-norm encoder layer with ReLU, as `nn.TransformerEncoderLayer`."""

    def __init__(self, dim: int, heads: int, ffn: int, dropout: float, norm_first: bool = False) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.self_attn = SingleHeadAttention(dim, dropout) if heads == 1 else SelfAttention(dim, heads, dropout)
        self.linear1 = Linear(dim, ffn)
        self.linear2 = Linear(ffn, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = ByteDropout(dropout)

    def forward(self, x_BLD: Tensor, hidden: Tensor, queries: int | None = None) -> Tensor:
        """[B, L, D] → [B, Q, D], the first Q = `queries` positions (default all); `hidden` as in `SelfAttention`."""
        if self.norm_first:
            x = x_BLD[:, :queries] + self.dropout(self.self_attn(self.norm1(x_BLD), hidden, queries))
            return x + self._feed_forward(self.norm2(x))
        return self._post_norm(x_BLD[:, :queries], self.self_attn(x_BLD, hidden, queries))

    def fused(self, shared_ULE: Tensor, constant_BC: Tensor, hidden_UL: Tensor, row_of_B: Tensor) -> Tensor:
        """`forward` on tokens [shared[row_of] ; constant]. Returns [B, L, E + C]."""
        tokens = fused_tokens(shared_ULE, constant_BC, row_of_B)
        if self.norm_first:
            return self(tokens, hidden_UL[row_of_B])
        return self._post_norm(tokens, self.self_attn.fused(shared_ULE, constant_BC, hidden_UL, row_of_B))

    def _post_norm(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(attended))
        return self.norm2(x + self._feed_forward(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x)))))


def fused_tokens(shared_ULE: Tensor, constant_BC: Tensor, row_of_B: Tensor) -> Tensor:
    """Concatenate each candidate's constant to its request's shared tokens. Returns [B, L, E + C]."""
    shared = shared_ULE[row_of_B]
    return torch.cat([shared, constant_BC[:, None].expand(-1, shared.shape[1], -1)], dim=-1)
