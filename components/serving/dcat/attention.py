"""Crossing attention: each candidate over its user's shared keys and values, and its own tokens behind them.

Shapes: U users, L context positions, B candidates grouped by user, S tokens of a candidate of which the last Q ask,
H heads, E width of a head, r rows (candidates × Q) of one user, l positions of the context that they see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from components.nn.linear import fast, times_transposed

TOGETHER = 512
"""Rows of a user whose weights are held at once: they stay in the cache."""


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

    Differentiable in all five tensors. On a GPU with Triton by its kernels, else user by user.
    """
    kernels = _kernels() if q_BQHE.is_cuda else None
    function: Any = kernels.TritonCrossing if kernels and kernels.suits(q_BQHE) else _Crossing
    # Autocast would widen the softmax forward, and is not there backward.
    with torch.autocast(q_BQHE.device.type, enabled=False):
        out: Tensor = function.apply(q_BQHE, k_BSHE, v_BSHE, keys_UHLE, values_UHLE, seen)
    return out


@cache
def _kernels() -> Any:
    """The module of Triton kernels, if Triton is installed."""
    return import_module("components.serving.dcat.kernels") if find_spec("triton") else None


@dataclass(frozen=True)
class _Part:
    """Some rows of one user, and how they are multiplied: all heads at once, or one after the other."""

    user: int
    rows: slice
    positions: slice
    by_head: bool

    def of(self, t_RHx: Tensor) -> tuple[Tensor, ...]:
        """Views of these rows: [r, x] of each head, or one [H, r, x]."""
        rows = t_RHx[self.rows]
        return rows.unbind(1) if self.by_head else (rows.transpose(0, 1),)

    def context(self, t_UHLE: Tensor) -> tuple[Tensor, ...]:
        """Views of what they see: [l, E] of each head, or one [H, l, E]."""
        seen = t_UHLE[self.user, :, self.positions]
        return seen.unbind(0) if self.by_head else (seen,)


def _parts(q_RHE: Tensor, queries: int, seen: Seen) -> Iterator[_Part]:
    for user, (begin, end) in enumerate(pairwise(seen.offsets)):
        positions = slice(seen.start[user], seen.stop[user])
        for first in range(begin * queries, end * queries, TOGETHER):
            rows = slice(first, min(first + TOGETHER, end * queries))
            # In bf16 torch's product of many matrices is oneDNN's already.
            by_head = q_RHE.dtype == torch.float32 and fast(q_RHE[rows, 0], positions.stop - positions.start)
            yield _Part(user, rows, positions, by_head)


def _times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a [..., m, k] times bᵀ of [..., n, k]."""
    return times_transposed(a, b) if a.ndim == 2 else a @ b.mT


class _Crossing(torch.autograd.Function):
    """Forward and backward by hand: autograd would add a gradient as large as all contexts for every user."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, seen: Seen) -> Tensor:
        q = q / math.sqrt(q.shape[-1])
        own = _own_logits(q, k)
        # Without gradients weights on own tokens take the place of their logits, and others are dropped at once.
        keep = any(ctx.needs_input_grad)
        mixed, own_weights, weights = torch.empty_like(q), torch.empty_like(own) if keep else own, []
        q_RHE, own_RHS, mixed_RHE, weights_RHS = (t.flatten(0, 1) for t in (q, own, mixed, own_weights))
        for part in _parts(q_RHE, q.shape[1], seen):
            of, context = (part.of(q_RHE), part.of(own_RHS)), (part.context(keys), part.context(values))
            for mine, itself, key, value, out, out_itself in zip(
                *of, *context, part.of(mixed_RHE), part.of(weights_RHS), strict=True
            ):
                softmax = torch.softmax(torch.cat([_times_transposed(mine, key), itself], dim=-1), dim=-1)
                others, weight = softmax.split([key.shape[-2], k.shape[1]], dim=-1)
                out.copy_(_times_transposed(others, value.mT))
                out_itself.copy_(weight)
                if keep:
                    weights.append(softmax)
        for s in range(k.shape[1]):
            mixed.addcmul_(own_weights[..., s, None], v[:, s, None])
        ctx.save_for_backward(q, k, v, keys, values, own_weights)
        ctx.seen, ctx.weights = seen, weights
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        q, k, v, keys, values, own_weights = ctx.saved_tensors
        grad, tokens, weights = grads[0].contiguous(), k.shape[1], iter(ctx.weights)
        to_own_weights = torch.stack([(grad * v[:, s, None]).sum(-1) for s in range(tokens)], -1)
        to_q, to_own = torch.empty_like(q), torch.empty_like(own_weights)
        to_keys, to_values = torch.zeros_like(keys), torch.zeros_like(values)
        read = [t.flatten(0, 1) for t in (q, grad, to_own_weights)]
        written = [t.flatten(0, 1) for t in (to_q, to_own)]
        for part in _parts(read[0], q.shape[1], ctx.seen):
            given = (*map(part.of, read), *map(part.of, written))
            shared = map(part.context, (keys, values, to_keys, to_values))
            for mine, g, g_own, out, out_own, key, value, out_key, out_value in zip(*given, *shared, strict=True):
                softmax = next(weights)
                others = softmax[..., : key.shape[-2]]
                to_softmax = torch.cat([_times_transposed(g, value), g_own], dim=-1)
                to_logits = torch._softmax_backward_data(to_softmax, softmax, -1, softmax.dtype)
                to_others, to_itself = to_logits.split([key.shape[-2], tokens], dim=-1)
                out.copy_(_times_transposed(to_others, key.mT))
                out_own.copy_(to_itself)
                out_key.add_(_times_transposed(to_others.mT, mine.mT))
                out_value.add_(_times_transposed(others.mT, g.mT))
        for s in range(tokens):
            to_q.addcmul_(to_own[..., s, None], k[:, s, None])
        to_k = torch.stack([(to_own[..., s, None] * q).sum(1) for s in range(tokens)], 1)
        to_v = torch.stack([(own_weights[..., s, None] * grad).sum(1) for s in range(tokens)], 1)
        return to_q / math.sqrt(q.shape[-1]), to_k, to_v, to_keys, to_values, None


def _own_logits(q_BQHE: Tensor, k_BSHE: Tensor) -> Tensor:
    """Logits [B, Q, H, S] of a candidate's tokens among themselves, −inf where a key comes later."""
    queries, tokens = q_BQHE.shape[1], k_BSHE.shape[1]
    logits = torch.stack([(q_BQHE * k_BSHE[:, s, None]).sum(-1) for s in range(tokens)], dim=-1)
    if queries == 1:
        return logits
    later = torch.ones(queries, tokens, dtype=torch.bool, device=logits.device).triu(1 + tokens - queries)
    return logits.masked_fill_(later[:, None], -math.inf)
