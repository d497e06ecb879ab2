"""Crossing attention in Triton, for GPUs: forward and backward, without a copy of any key or value.

A program handles M rows of one user and one head, so that the user's keys are read once for M candidates; softmax is
online. Backward recomputes weights from each row's log-sum-exp.

Shapes as in `attention`; R = B × Q rows.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, KEYS = 64, 32
"""M and N: rows and keys that a program multiplies at once."""


def suits(q_BQHE: Tensor) -> bool:
    """Whether these kernels can run."""
    return q_BQHE.is_cuda and q_BQHE.shape[-1] in (16, 32, 64, 128)


@triton.jit
def _logits(q, key, seen, scale):  # type: ignore[no-untyped-def]
    return tl.where(seen[None, :], tl.dot(q, tl.trans(key), input_precision="ieee") * scale, -float("inf"))


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, keys_ptr, values_ptr, out_ptr, lse_ptr, user_ptr, row_ptr, end_ptr, start_ptr, stop_ptr,
    scale, queries, tokens, heads, length, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    tile, head, e = tl.program_id(0), tl.program_id(1), tl.arange(0, E)
    user, row = tl.load(user_ptr + tile), tl.load(row_ptr + tile) + tl.arange(0, M)
    inside = (row < tl.load(end_ptr + tile))[:, None]
    at = (row[:, None] * heads + head) * E + e[None, :]
    q = tl.load(q_ptr + at, inside, 0.0)
    top = tl.full([M], -float("inf"), tl.float32)
    total, mixed = tl.zeros([M], tl.float32), tl.zeros([M, E], tl.float32)
    stop = tl.load(stop_ptr + user)
    for first in range(tl.load(start_ptr + user), stop, N):
        position = first + tl.arange(0, N)
        seen = position < stop
        held = ((user * heads + head) * length + position[:, None]) * E + e[None, :]
        logits = _logits(q, tl.load(keys_ptr + held, seen[:, None], 0.0), seen, scale)
        new = tl.maximum(top, tl.max(logits, 1))
        weights, shrink = tl.exp(logits - new[:, None]), tl.exp(top - new)
        value = tl.load(values_ptr + held, seen[:, None], 0.0)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        total, top = total * shrink + tl.sum(weights, 1), new
    for s in range(0, tokens):
        own = (((row // queries) * tokens + s)[:, None] * heads + head) * E + e[None, :]
        logit = tl.sum(q.to(tl.float32) * tl.load(k_ptr + own, inside, 0.0).to(tl.float32), 1) * scale
        logit = tl.where(s <= row % queries + tokens - queries, logit, -float("inf"))
        new = tl.maximum(top, logit)
        weight, shrink = tl.exp(logit - new), tl.exp(top - new)
        value = tl.load(v_ptr + own, inside, 0.0).to(tl.float32)
        mixed = mixed * shrink[:, None] + weight[:, None] * value
        total, top = total * shrink + weight, new
    tl.store(out_ptr + at, (mixed / total[:, None]).to(q.dtype), inside)
    tl.store(lse_ptr + row * heads + head, top + tl.log(total), row < tl.load(end_ptr + tile))


@triton.jit
def _backward_rows(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, keys_ptr, values_ptr, g_ptr, lse_ptr, delta_ptr, dq_ptr, dk_ptr, dv_ptr,
    user_ptr, row_ptr, end_ptr, start_ptr, stop_ptr,
    scale, queries, tokens, heads, length, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Gradients of queries and own tokens."""
    tile, head, e = tl.program_id(0), tl.program_id(1), tl.arange(0, E)
    user, row = tl.load(user_ptr + tile), tl.load(row_ptr + tile) + tl.arange(0, M)
    real = row < tl.load(end_ptr + tile)
    inside, at = real[:, None], (row[:, None] * heads + head) * E + e[None, :]
    q, g = tl.load(q_ptr + at, inside, 0.0), tl.load(g_ptr + at, inside, 0.0)
    lse = tl.load(lse_ptr + row * heads + head, real, 0.0)
    delta = tl.load(delta_ptr + row * heads + head, real, 0.0)
    dq, stop = tl.zeros([M, E], tl.float32), tl.load(stop_ptr + user)
    for first in range(tl.load(start_ptr + user), stop, N):
        position = first + tl.arange(0, N)
        seen = position < stop
        held = ((user * heads + head) * length + position[:, None]) * E + e[None, :]
        key = tl.load(keys_ptr + held, seen[:, None], 0.0)
        value = tl.load(values_ptr + held, seen[:, None], 0.0)
        weights = tl.exp(_logits(q, key, seen, scale) - lse[:, None])
        to_logits = weights * (tl.dot(g, tl.trans(value), input_precision="ieee") - delta[:, None]) * scale
        dq += tl.dot(to_logits.to(key.dtype), key, input_precision="ieee")
    for s in range(0, tokens):
        own = (((row // queries) * tokens + s)[:, None] * heads + head) * E + e[None, :]
        key = tl.load(k_ptr + own, inside, 0.0).to(tl.float32)
        value = tl.load(v_ptr + own, inside, 0.0).to(tl.float32)
        logit = tl.sum(q.to(tl.float32) * key, 1) * scale
        weight = tl.where(s <= row % queries + tokens - queries, tl.exp(logit - lse), 0.0)
        to_logit = weight * (tl.sum(g.to(tl.float32) * value, 1) - delta) * scale
        dq += to_logit[:, None] * key
        # A candidate's queries may be rows of several programs.
        tl.atomic_add(dk_ptr + own, to_logit[:, None] * q.to(tl.float32), inside)
        tl.atomic_add(dv_ptr + own, weight[:, None] * g.to(tl.float32), inside)
    tl.store(dq_ptr + at, dq.to(q.dtype), inside)


@triton.jit
def _backward_context(  # type: ignore[no-untyped-def]
    q_ptr, keys_ptr, values_ptr, g_ptr, lse_ptr, delta_ptr, dkeys_ptr, dvalues_ptr, bound_ptr, start_ptr, stop_ptr,
    scale, heads, length, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Gradients of N keys and values of one user, over all the user's rows."""
    user, head, e = tl.program_id(0), tl.program_id(1), tl.arange(0, E)
    position = tl.load(start_ptr + user) + tl.program_id(2) * N + tl.arange(0, N)
    seen = position < tl.load(stop_ptr + user)
    held = ((user * heads + head) * length + position[:, None]) * E + e[None, :]
    key = tl.load(keys_ptr + held, seen[:, None], 0.0)
    value = tl.load(values_ptr + held, seen[:, None], 0.0)
    dkey, dvalue, end = tl.zeros([N, E], tl.float32), tl.zeros([N, E], tl.float32), tl.load(bound_ptr + user + 1)
    for first in range(tl.load(bound_ptr + user), end, M):
        row = first + tl.arange(0, M)
        real, at = row < end, (row[:, None] * heads + head) * E + e[None, :]
        q, g = tl.load(q_ptr + at, real[:, None], 0.0), tl.load(g_ptr + at, real[:, None], 0.0)
        lse = tl.load(lse_ptr + row * heads + head, real, 0.0)
        delta = tl.load(delta_ptr + row * heads + head, real, 0.0)
        weights = tl.where(real[:, None], tl.exp(_logits(q, key, seen, scale) - lse[:, None]), 0.0)
        dvalue += tl.dot(tl.trans(weights).to(g.dtype), g, input_precision="ieee")
        to_logits = weights * (tl.dot(g, tl.trans(value), input_precision="ieee") - delta[:, None]) * scale
        dkey += tl.dot(tl.trans(to_logits).to(q.dtype), q, input_precision="ieee")
    tl.store(dkeys_ptr + held, dkey.to(key.dtype), seen[:, None])
    tl.store(dvalues_ptr + held, dvalue.to(value.dtype), seen[:, None])


class TritonCrossing(torch.autograd.Function):
    """`attention.crossing_attention`, its arguments, on a GPU."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, seen: Any) -> Tensor:
        q, k, v, keys, values = (t.contiguous() for t in (q, k, v, keys, values))
        lists = _lists(seen, q.shape[1], q.device)
        out, lse = torch.empty_like(q), torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        if len(lists[0]):
            grid, sizes = (len(lists[0]), q.shape[2]), _sizes(q, k, keys)
            _forward[grid](q, k, v, keys, values, out, lse, *lists[:5], *sizes, E=q.shape[3], M=ROWS, N=KEYS)
        ctx.save_for_backward(q, k, v, keys, values, out, lse, *lists)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        q, k, v, keys, values, out, lse, *lists = ctx.saved_tensors
        g, tiles, heads, width = grads[0].contiguous(), len(lists[0]), q.shape[2], q.shape[3]
        delta = (g.float() * out.float()).sum(-1)
        dq, dk, dv = (
            torch.zeros_like(q),
            torch.zeros_like(k, dtype=torch.float32),
            torch.zeros_like(v, dtype=torch.float32),
        )
        dkeys, dvalues = torch.zeros_like(keys), torch.zeros_like(values)
        shape, sizes = {"E": width, "M": ROWS, "N": KEYS}, _sizes(q, k, keys)
        if tiles:
            rows = (q, k, v, keys, values, g, lse, delta, dq, dk, dv)
            _backward_rows[(tiles, heads)](*rows, *lists[:5], *sizes, **shape)
            blocks = (len(keys), heads, max(1, -(-keys.shape[2] // KEYS)))
            context = (q, keys, values, g, lse, delta, dkeys, dvalues, lists[5], *lists[3:5])
            _backward_context[blocks](*context, sizes[0], heads, keys.shape[2], **shape)
        return dq, dk.to(k.dtype), dv.to(v.dtype), dkeys, dvalues, None


def _sizes(q: Tensor, k: Tensor, keys: Tensor) -> tuple[float, int, int, int, int]:
    return 1 / math.sqrt(q.shape[3]), q.shape[1], k.shape[1], q.shape[2], keys.shape[2]


def _lists(seen: Any, queries: int, device: torch.device) -> tuple[Tensor, ...]:
    """Tiles (user, first row, end of the user's rows), then start, stop and bounds of rows by user, int32."""
    tiles = [
        (user, first, end * queries)
        for user, (begin, end) in enumerate(pairwise(seen.offsets))
        for first in range(begin * queries, end * queries, ROWS)
    ]
    users, rows, ends = zip(*tiles, strict=True) if tiles else ((), (), ())
    bounds = tuple(offset * queries for offset in seen.offsets)
    lists = (users, rows, ends, seen.start, seen.stop, bounds)
    return tuple(torch.tensor(values, dtype=torch.int32, device=device) for values in lists)
