"""Crossing attention: each candidate over its user's shared keys and values, and its own tokens behind them.

Shapes: U users, L context positions, B candidates grouped by user, S tokens of a candidate of which the last Q ask,
H heads, E width of a head, r rows (candidates × Q) of one user, l positions of the context that they see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from components.nn.linear import fast, times_transposed


@dataclass(frozen=True)
class Seen:
    """Who sees what: candidates `offsets[u]`:`offsets[u + 1]` see positions `start[u]`:`stop[u]` of user u."""

    offsets: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]


def crossing_attention(
    q_BQHE: Tensor, k_BSHE: Tensor, v_BSHE: Tensor, keys_UHLE: Tensor, values_UHLE: Tensor, seen: Seen
) -> Tensor:
    """Mixed values [B, Q, H, E] (Eq. 4). Own tokens are causal among themselves; keys and values are not copied.

    Differentiable in all five tensors.
    """
    out: Tensor = _Crossing.apply(q_BQHE, k_BSHE, v_BSHE, keys_UHLE, values_UHLE, seen)
    return out


@dataclass(frozen=True)
class _Part:
    """One user, whose heads are multiplied at once, or one head of a user with many candidates."""

    rows: slice
    user: int
    positions: slice
    head: int | None

    def of(self, t_RHx: Tensor) -> Tensor:
        """View of this part's rows: [H, r, x] or [r, x]."""
        rows = t_RHx[self.rows]
        return rows.transpose(0, 1) if self.head is None else rows[:, self.head]

    def context(self, t_UHLE: Tensor) -> Tensor:
        """View of what this part sees: [H, l, E] or [l, E]."""
        return t_UHLE[self.user, slice(None) if self.head is None else self.head, ..., self.positions, :]


def _parts(q_RHE: Tensor, queries: int, seen: Seen) -> Iterator[_Part]:
    for user, (begin, end) in enumerate(pairwise(seen.offsets)):
        rows, positions = slice(begin * queries, end * queries), slice(seen.start[user], seen.stop[user])
        if begin == end:
            continue
        # In bf16 torch's product of many matrices is oneDNN's already.
        by_head = q_RHE.dtype == torch.float32 and fast(q_RHE[rows, 0], positions.stop - positions.start)
        for head in range(q_RHE.shape[1]) if by_head else (None,):
            yield _Part(rows, user, positions, head)


def _times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a [..., m, k] times bᵀ of [..., n, k]."""
    return times_transposed(a, b) if a.ndim == 2 else a @ b.mT


class _Crossing(torch.autograd.Function):
    """Forward and backward by hand: autograd would add a gradient as large as all contexts for every user."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, seen: Seen) -> Tensor:
        q = q / math.sqrt(q.shape[-1])
        q_RHE, own = q.flatten(0, 1), _own_logits(q, k).flatten(0, 1)
        mixed, own_weights, weights = torch.empty_like(q_RHE), torch.empty_like(own), []
        for part in _parts(q_RHE, q.shape[1], seen):
            logits = _times_transposed(part.of(q_RHE), part.context(keys))
            size = logits.shape[-1]
            softmax = torch.softmax(torch.cat([logits, part.of(own)], dim=-1), dim=-1)
            part.of(mixed).copy_(_times_transposed(softmax[..., :size], part.context(values).mT))
            part.of(own_weights).copy_(softmax[..., size:])
            if any(ctx.needs_input_grad):
                weights.append(softmax)
        mixed, own_weights = mixed.view_as(q), own_weights.view(*q.shape[:3], k.shape[1])
        for s in range(k.shape[1]):
            mixed.addcmul_(own_weights[..., s, None], v[:, s, None])
        ctx.save_for_backward(q, k, v, keys, values, own_weights)
        ctx.seen, ctx.weights = seen, weights
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        q, k, v, keys, values, own_weights = ctx.saved_tensors
        grad = grads[0].contiguous()
        q_RHE, grad_RHE = q.flatten(0, 1), grad.flatten(0, 1)
        to_own_weights = torch.stack([(grad * v[:, s, None]).sum(-1) for s in range(k.shape[1])], -1).flatten(0, 1)
        to_q, to_own = torch.empty_like(q_RHE), torch.empty_like(to_own_weights)
        to_keys, to_values = torch.zeros_like(keys), torch.zeros_like(values)
        for part, softmax in zip(_parts(q_RHE, q.shape[1], ctx.seen), ctx.weights, strict=True):
            mine = part.of(grad_RHE)
            to_seen = _times_transposed(mine, part.context(values))
            size = to_seen.shape[-1]
            to_softmax = torch.cat([to_seen, part.of(to_own_weights)], dim=-1)
            to_logits = torch._softmax_backward_data(to_softmax, softmax, -1, softmax.dtype)
            part.of(to_own).copy_(to_logits[..., size:])
            to_seen = to_logits[..., :size]
            part.of(to_q).copy_(_times_transposed(to_seen, part.context(keys).mT))
            part.context(to_keys).copy_(_times_transposed(to_seen.mT, part.of(q_RHE).mT))
            part.context(to_values).copy_(_times_transposed(softmax[..., :size].mT, mine.mT))
        to_q, to_own = to_q.view_as(q), to_own.view_as(own_weights)
        for s in range(k.shape[1]):
            to_q.addcmul_(to_own[..., s, None], k[:, s, None])
        to_k = torch.stack([(to_own[..., s, None] * q).sum(1) for s in range(k.shape[1])], 1)
        to_v = torch.stack([(own_weights[..., s, None] * grad).sum(1) for s in range(k.shape[1])], 1)
        return to_q / math.sqrt(q.shape[-1]), to_k, to_v, to_keys, to_values, None


def _own_logits(q_BQHE: Tensor, k_BSHE: Tensor) -> Tensor:
    """Logits [B, Q, H, S] of a candidate's tokens among themselves, −inf where a key comes later."""
    queries, tokens = q_BQHE.shape[1], k_BSHE.shape[1]
    logits = torch.stack([(q_BQHE * k_BSHE[:, s, None]).sum(-1) for s in range(tokens)], dim=-1)
    if queries == 1:
        return logits
    later = torch.ones(queries, tokens, dtype=torch.bool, device=logits.device).triu(1 + tokens - queries)
    return logits.masked_fill_(later[:, None], -math.inf)
