"""InfoNCE over the positives of a batch (PinFM, Eq. 2), for all three losses at once.

Shapes: P positions, C candidates, O owners, K (position, positive) pairs, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from components.nn.linear import inner_products


def against(logit_PC: Tensor, own_PC: Tensor, log_q_C: Tensor) -> Tensor:
    """log Σ exp of what stands against each position: the items that are not its owner's, each over its chance. [P].

    Args:
        log_q_C: log of the chance that a batch has an item among its negatives; what is rarely there counts for more.
    """
    # Not −inf: where every item is the owner's, its gradient would be NaN.
    return torch.logsumexp((logit_PC - log_q_C).masked_fill(own_PC, -1e9), dim=1)


def info_nce(
    h_PD: Tensor,
    z_CD: Tensor,
    temperature: Tensor,
    own_PC: Tensor,
    log_q_C: Tensor,
    source_K: Tensor,
    target_K: Tensor,
) -> Tensor:
    """−log e^{h·z/τ} / (e^{h·z/τ} + Σ_negatives e^{h·z⁻/τ} / chance) of each pair. float32 [K]."""
    logit_PC = inner_products(h_PD, z_CD) / temperature
    negative_P = against(logit_PC, own_PC, log_q_C)
    return F.softplus(negative_P[source_K] - logit_PC[source_K, target_K])


def by_loss(each_K: Tensor, weight_K: Tensor, loss_K: Tensor, losses: int) -> Tensor:
    """Σ weight · loss of the pairs of each kind. [losses]; 0 of a kind without pairs."""
    return each_K.new_zeros(losses).index_add(0, loss_K, each_K * weight_K)
