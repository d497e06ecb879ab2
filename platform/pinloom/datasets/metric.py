"""Names of ranking metrics, as `promotion.metric` has them. Light, so that a wrong one is answered at load."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from components.errors import UserError

NAME = re.compile(r"(?P<kind>hit|recall|found|mrr|auc|log_loss|calibration)(@(?P<k>\d+))?(/(?P<head>.+))?")
AT_K, BY_HEAD = ("hit", "recall", "found"), ("auc", "log_loss", "calibration")


@dataclass(frozen=True)
class Metric:
    """`hit@3`, `hit@3/buy`, `recall@10`, `mrr`, `auc/buy`, `log_loss/buy`, `calibration/buy`.

    Without a head it counts rows on which any head of positive utility happened.
    """

    kind: str
    k: int = 0
    head: str = ""

    @classmethod
    def parse(cls, name: str, heads: Sequence[str]) -> Metric:
        """
        Raises:
            UserError: no such metric or head.
        """
        found = NAME.fullmatch(name)
        kind, k, head = (found["kind"], found["k"], found["head"] or "") if found else ("", None, "")
        sound = bool(kind) and (kind in AT_K) == (k is not None) and (kind not in BY_HEAD or bool(head))
        if not sound or (head and head not in heads) or k == "0":
            raise UserError(
                f"there is no metric '{name}'",
                "use hit@K, recall@K or mrr, alone or with /HEAD, or auc/HEAD or log_loss/HEAD; "
                f"heads: {', '.join(heads)}",
            )
        return cls(kind, int(k or 0), head)
