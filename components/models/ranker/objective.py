"""Weighted multi-head cross-entropy (TransAct §3.3, Eqs. 1-2), corrected for negatives that were not kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.contract import Contract
from components.errors import UserError
from components.models.ranker.batch import RankingBatch

NO_ACTION = "no_action"


def kept_entropy(logits_BH: Tensor, batch: RankingBatch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of population logits on the rows that were kept, and what each row weighs in it. Both [B, H].

    A row of sampling probability s weighs 1 / s where the head happened and r / s where it did not, r being the
    request's `negative_rate_U`: all negatives of a head, those with another action too, then count as if kept at rate
    r, and the head's log-odds exceed the population's by exactly −log r.
    """
    rate_B1 = batch.negative_rate_U[batch.row_of_B, None]
    entropy = F.binary_cross_entropy_with_logits(logits_BH - torch.log(rate_B1), batch.labels_BH, reduction="none")
    return entropy, torch.where(batch.labels_BH > 0, 1.0, rate_B1) / batch.sampling_B[:, None]


class RankingLoss(nn.Module):
    """L = Σ_rows w_u Σ_h w_h · BCE_h / rows, with w_h = Σ_a M[h, a] y_a and BCE_h as in `kept_entropy`.

    M comes from the contract's `label_weights`; an entry that is not declared is 1 for the head's own action. Rows in
    which no action with an entry happened weigh `no_action` (default 1). Without declared weights this is plain
    cross-entropy. Labels are known by head, so actions that share a head share the column (their largest weight).
    w_u is the product of the contract's `user_weights` for the user.
    """

    weight_HH: Tensor
    declared_HH: Tensor
    idle_H: Tensor

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        weight, declared, idle = label_weights(contract)
        self.register_buffer("weight_HH", weight)
        self.register_buffer("declared_HH", declared)
        self.register_buffer("idle_H", idle)

    def forward(self, logits_BH: Tensor, batch: RankingBatch) -> Tensor:
        """Scalar loss of population logits."""
        entropy, kept = kept_entropy(logits_BH, batch)
        weighted = (entropy * kept * self.row_weights(batch.labels_BH)).sum(-1)
        return (weighted * batch.user_weight_U[batch.row_of_B]).mean()

    def row_weights(self, labels_BH: Tensor) -> Tensor:
        """w_h of every row. [B, H]."""
        entries = labels_BH @ self.declared_HH.T
        return torch.where(entries > 0, labels_BH @ self.weight_HH.T, self.idle_H)


def label_weights(contract: Contract) -> tuple[Tensor, Tensor, Tensor]:
    """(M [H, H], which entries are declared [H, H], weight of rows without one [H]).

    Raises:
        UserError: a head or action in `label_weights` that the vocabulary does not have.
    """
    heads = contract.heads
    weight, declared, idle = torch.eye(len(heads)), torch.eye(len(heads)), torch.ones(len(heads))
    for head, row in contract.label_weights.items():
        if head not in heads:
            raise UserError(f"contract.label_weights names head '{head}'", f"heads: {', '.join(heads)}")
        h = heads.index(head)
        idle[h] = row.get(NO_ACTION, 1.0)
        for other, of_action in enumerate(heads):
            values = [row[a] for a in contract.actions_of(of_action) if a in row]
            if values:
                weight[h, other], declared[h, other] = max(values), 1.0
        unknown = set(row) - {a.name for a in contract.actions if a.head} - {NO_ACTION}
        if unknown:
            raise UserError(
                f"contract.label_weights.{head} names {', '.join(sorted(unknown))}",
                f"actions with a head: {', '.join(a.name for a in contract.actions if a.head)}, or {NO_ACTION}",
            )
    return weight, declared, idle
