"""The other ways to rank candidates behind a history, with the decoder and products of DCAT's own.

Shapes: one user's L tokens, B candidates of one token each, D width, H heads, E = D / H.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from components.nn.decoder import CausalDecoder
from components.serving.dcat import Context, encode_context, full_run


def masked_pass(decoder: CausalDecoder, x_1LD: Tensor, x_B1D: Tensor) -> Tensor:
    """[history; all candidates] in one pass, each candidate blind to the others: HSTU's M-FALCON, by SDPA. [B, D]."""
    length, total = x_1LD.shape[1], x_1LD.shape[1] + len(x_B1D)
    place = torch.arange(total).clamp(max=length)
    seen = torch.ones(total, length, dtype=torch.bool).tril()
    seen = torch.cat([seen, torch.zeros(total, len(x_B1D), dtype=torch.bool)], dim=1) | torch.eye(total).bool()
    x, rotation = decoder.enter(torch.cat([x_1LD, x_B1D.transpose(0, 1)], dim=1), place), decoder.rotation(place)
    for layer in decoder.layers:
        q, k, v, gate = layer.project(x, rotation)
        x = layer.finish(x, layer.attend(q, k, v, seen[None]), gate)
    out: Tensor = decoder.norm(x[0, length:])
    return out


def repeated(decoder: CausalDecoder, x_1LD: Tensor, x_B1D: Tensor) -> Tensor:
    """The history once, its keys and values copied for every candidate (a KV cache). [B, D]."""
    context = encode_context(decoder, x_1LD)
    x = decoder.enter(x_B1D, torch.arange(1))
    for layer, keys, values in zip(decoder.layers, context.keys, context.values, strict=True):
        q, k, v = (t.transpose(1, 2) for t in layer.project(x, None)[:3])
        k, v = (torch.cat([held.repeat(len(x), 1, 1, 1), own], dim=2) for held, own in ((keys, k), (values, v)))
        x = layer.finish(x, F.scaled_dot_product_attention(q, k, v).transpose(1, 2), None)
    out: Tensor = decoder.norm(x[:, 0])
    return out


def full(decoder: CausalDecoder, x_1LD: Tensor, x_B1D: Tensor, block: int = 25) -> Tensor:
    """[history; candidate] anew for every candidate, some at a time. [B, D]."""
    length = torch.tensor([x_1LD.shape[1]])
    parts = [full_run(decoder, x_1LD, length, part, torch.zeros(len(part)).long()) for part in x_B1D.split(block)]
    return torch.cat(parts)


def flops(context: Context, candidates: int, dim: int, ffn: int) -> float:
    """What DCAT must do for one user: products of the layers, attention, and of the last layer's context keys alone."""
    layers, (length,) = len(context.keys), context.lengths
    token = 2 * (4 * dim * dim + 2 * dim * ffn)
    history = (layers - 1) * (length * token + 2 * dim * length * (length + 1)) + length * 4 * dim * dim
    return history + candidates * layers * (token + 4 * dim * (length + 1))
