"""PinSage's losses over shared and hard negatives (section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def scores(
    z_Rd: Tensor, query_B: Tensor, positive_B: Tensor, negative_S: Tensor, hard_BH: Tensor
) -> tuple[Tensor, Tensor]:
    """Dot products of queries with their positives [B], and with shared and own negatives [B, S + H]."""
    query = z_Rd[query_B]
    positive = (query * z_Rd[positive_B]).sum(1)
    shared = query @ z_Rd[negative_S].T
    hard = torch.einsum("bd,bhd->bh", query, z_Rd[hard_BH])
    return positive, torch.cat([shared, hard], dim=1)


def max_margin(positive_B: Tensor, negative_BN: Tensor, allowed_BN: Tensor, margin: float) -> Tensor:
    """Eq. 1: mean over the allowed negatives of max(0, z_q·z_n − z_q·z_i + Δ). [B]; 0 where none is allowed."""
    hinge = F.relu(negative_BN - positive_B[:, None] + margin) * allowed_BN
    return hinge.sum(1) / allowed_BN.sum(1).clamp(min=1)


def cross_entropy(positive_B: Tensor, negative_BN: Tensor, allowed_BN: Tensor) -> Tensor:
    """−log of the positive's share in a softmax with its allowed negatives. [B]."""
    # Not −inf: where no negative is allowed, its gradient would be NaN.
    against = torch.logsumexp(negative_BN.masked_fill(~allowed_BN, -1e9), dim=1)
    return F.softplus(against - positive_B)


def weighted_mean(loss_B: Tensor, weight_B: Tensor) -> Tensor:
    return (loss_B * weight_B).sum() / weight_B.sum().clamp(min=1e-12)
