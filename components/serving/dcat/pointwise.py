"""Crossing attention of HSTU's layers (`components.nn.hstu`): sums over context and own tokens, by the number of both.

Weights are no softmax, so that the two parts are made apart and added. Shapes as in `attention`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from components.nn.hstu import pointwise
from components.serving.dcat.attention import Seen


def pointwise_crossing(
    q_BQHE: Tensor,
    k_BSHE: Tensor,
    v_BSHE: Tensor,
    keys_UHLE: Tensor,
    values_UHLE: Tensor,
    seen: Seen,
    *,
    bias_N: Tensor,
) -> Tensor:
    """Mixed values [B, Q, H, E]: as `crossing_attention`, given the bias of a key by its distance before the query.

    A candidate's tokens stand right behind `seen.stop` tokens of history. User by user, on any device; keys and values
    are not copied.
    """
    queries, tokens = q_BQHE.shape[1], k_BSHE.shape[1]
    place_Q, place_S = (torch.arange(tokens - n, tokens, device=q_BQHE.device) for n in (queries, tokens))
    own_BQHE = _over_own(q_BQHE, k_BSHE, v_BSHE, place_Q[:, None] - place_S, bias_N)
    sizes = [end - begin for begin, end in pairwise(seen.offsets)]
    mixed = []
    # Unbound, so that the gradients of all users are one tensor and not one each.
    users = zip(q_BQHE.split(sizes), own_BQHE.split(sizes), keys_UHLE.unbind(0), values_UHLE.unbind(0), strict=True)
    for (q, own, keys, values), start, stop in zip(users, seen.start, seen.stop, strict=True):
        before_Ql = (stop + place_Q)[:, None] - torch.arange(start, stop, device=q.device)
        weights = pointwise(q.transpose(1, 2), keys[:, start:stop], bias_N[before_Ql])
        shared = (weights @ values[:, start:stop]).transpose(1, 2)
        mixed.append((own + shared) / (stop - start + 1 + place_Q)[:, None, None])
    return torch.cat(mixed) if mixed else own_BQHE


def _over_own(q_BQHE: Tensor, k_BSHE: Tensor, v_BSHE: Tensor, before_QS: Tensor, bias_N: Tensor) -> Tensor:
    """Sum over the candidate's own tokens that are not later. [B, Q, H, E]."""
    q, k, v = (t.transpose(1, 2) for t in (q_BQHE, k_BSHE, v_BSHE))
    weights = pointwise(q, k, bias_N[before_QS.clamp(min=0)]) * (before_QS >= 0)
    return (weights @ v).transpose(1, 2)
