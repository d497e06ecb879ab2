"""Next-item losses against sampled negatives, and set-valued ranking measures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def clashes(source_K: Tensor, target_K: Tensor, negative_S: Tensor, steps: int) -> Tensor:
    """True where a negative is one of the items that a step leads to: it must not count against it. [P, S]."""
    distinct, place = torch.unique(negative_S, return_inverse=True)
    column = torch.searchsorted(distinct, target_K).clamp(max=len(distinct) - 1)
    drawn = distinct[column] == target_K
    clash = torch.zeros(steps, len(distinct), dtype=torch.bool, device=negative_S.device)
    clash[source_K[drawn], column[drawn]] = True
    return clash[:, place]


def weigh_negatives(kind: str, logit_PS: Tensor, log_q_S: Tensor, clash_PS: Tensor) -> Tensor:
    """What S shared negatives weigh at each of P steps. [P].

    Args:
        kind: 'softmax': the log of their summed exponentials, each over how often it is drawn; 'bce': their mean
            cross-entropy.
        log_q_S: log of the expected number of times that a negative is drawn.
    """
    if kind == "softmax":
        # Not −inf: where every negative clashes, its gradient would be NaN.
        return torch.logsumexp((logit_PS - log_q_S).masked_fill(clash_PS, -1e9), dim=1)
    return F.softplus(logit_PS).masked_fill(clash_PS, 0.0).sum(1) / (~clash_PS).sum(1).clamp(min=1)


def pair_loss(kind: str, positive_K: Tensor, against_K: Tensor) -> Tensor:
    """Mean loss of K (step, target) pairs, given the targets' logits and what stands against each; 0 without any."""
    loss = F.softplus(against_K - positive_K) if kind == "softmax" else F.softplus(-positive_K) + against_K
    return loss.sum() / max(len(loss), 1)


def hits_and_ndcg(top_EK: Tensor, query_T: Tensor, target_T: Tensor, queries: int) -> tuple[Tensor, Tensor]:
    """HIT@K and NDCG@K of each query whose target is a set.

    Args:
        top_EK: item rows, best first.
        query_T, target_T: (query, item) pairs of the target sets.

    Returns:
        [E] whether any target is among the K, and [E] discounted gain over that of an ideal order.
    """
    k = top_EK.shape[1]
    found = torch.zeros_like(top_EK, dtype=torch.float32)
    matches = top_EK[query_T] == target_T[:, None]
    found = found.index_add(0, query_T, matches.float()).clamp(max=1)
    discount = 1 / torch.log2(torch.arange(2, k + 2, device=top_EK.device))
    size = torch.zeros(queries, device=top_EK.device).index_add(0, query_T, torch.ones_like(query_T, dtype=torch.float))
    ideal = discount.cumsum(0)[(size.clamp(max=k).long() - 1).clamp(min=0)]
    return found.amax(1), (found * discount).sum(1) / ideal
