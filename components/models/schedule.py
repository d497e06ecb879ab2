"""Learning-rate schedules that recipes share."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warm_cosine(optimizer: Optimizer, total_steps: int, warmup: float, final: float = 0.0) -> LambdaLR:
    """Linear warm-up, then half a cosine, of each group's own peak.

    Args:
        warmup: share of all steps in which rates rise, one step at least.
        final: share of the peak that is left at the last step.
    """
    warm = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        gone = min(1.0, (step - warm) / max(1, total_steps - warm))
        return final + (1 - final) * (1 + math.cos(math.pi * gone)) / 2

    return LambdaLR(optimizer, factor)
