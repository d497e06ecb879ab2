"""The slow twin of DCAT: [history; candidate] run whole for every candidate.

Shapes as in `context`; T = L + S positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from components.nn.decoder import CausalDecoder


def full_run(
    decoder: CausalDecoder,
    x_ULD: Tensor,
    length_U: Tensor,
    x_BSD: Tensor,
    row_of_B: Tensor,
    *,
    slots: int | None = None,
) -> Tensor:
    """States [B, D] of the candidates' last tokens; arguments as in `encode_context` and `cross`.

    With `slots`, a candidate's tokens do not see the oldest tokens that theirs displace, whereas the others did.
    """
    tokens, length_B = x_BSD.shape[1], length_U[row_of_B]
    place_BS = length_B[:, None] + torch.arange(tokens, device=x_BSD.device)
    x_BTD = F.pad(x_ULD[row_of_B], (0, 0, 0, tokens))
    x_BTD = x_BTD.scatter(1, place_BS[..., None].expand_as(x_BSD), x_BSD)
    if slots is None:
        states = decoder(x_BTD)
    else:
        states = _masked_run(decoder, x_BTD, _seen(x_BTD.shape[1], length_B, tokens, slots))
    return states[torch.arange(len(x_BSD), device=x_BSD.device), place_BS[:, -1]]


def _seen(total: int, length_B: Tensor, tokens: int, slots: int) -> Tensor:
    """Which keys a query sees, bool [B, T, T]."""
    query, key = (torch.arange(total, device=length_B.device).view(shape) for shape in ((-1, 1), (1, -1)))
    length = length_B[:, None, None]
    displaced = (query >= length) & (key < length + tokens - slots)
    return (key <= query) & ~displaced


def _masked_run(decoder: CausalDecoder, x_BTD: Tensor, seen_BTT: Tensor) -> Tensor:
    place = torch.arange(x_BTD.shape[1], device=x_BTD.device)
    x, rotation = decoder.enter(x_BTD, place), decoder.rotation(place)
    for layer in decoder.layers:
        q, k, v, gate = layer.project(x, rotation)
        x = layer.finish(x, layer.attend(q, k, v, seen_BTT), gate)
    out: Tensor = decoder.norm(x)
    return out
