"""Ψ and its inverse: which sequences of a batch are equal, and which candidates belong to each, as offsets.

Shapes: R sequences as they come (one per request), U unique ones, B candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Unique:
    """Ψ: equal sequences as one.

    Attributes:
        first_U: int64 row, among the R, at which each unique sequence first came; in that order.
        unique_of_R: int64 unique sequence of each row.
    """

    first_U: Tensor
    unique_of_R: Tensor

    def group(self, row_of_B: Tensor) -> tuple[Tensor, Tensor]:
        """Ψ⁻¹: candidates of rows `row_of_B` [B], brought together by unique sequence.

        Returns `order` and `unique_of`, int64 [B]: the n-th candidate of the grouped list is `order[n]` of the given
        one and belongs to unique sequence `unique_of[n]`, which does not decrease.
        """
        unique_of = self.unique_of_R[row_of_B]
        order = torch.argsort(unique_of, stable=True)
        return order, unique_of[order]


def unique(*columns: Tensor) -> Unique:
    """Find equal rows: all of `columns` [R, ...] must agree bit by bit. Meant for CPU, where batches are made."""
    rows = len(columns[0])
    flat = [c.detach().cpu().numpy() for c in columns]
    found: dict[bytes, int] = {}
    first: list[int] = []
    of: list[int] = []
    for row in range(rows):
        number = found.setdefault(b"".join(column[row].tobytes() for column in flat), len(found))
        if number == len(first):
            first.append(row)
        of.append(number)
    device = columns[0].device
    return Unique(torch.tensor(first, device=device), torch.tensor(of, dtype=torch.int64, device=device))


def offsets(row_of_B: Tensor, users: int) -> list[int]:
    """Candidates of user u are `offsets[u]` up to `offsets[u + 1]`. Returns `users` + 1 numbers.

    Raises:
        ValueError: `row_of_B` [B] decreases somewhere, or names a user that is not there.
    """
    # The end of each user's run, if runs there are.
    ends = torch.searchsorted(row_of_B, torch.arange(users, device=row_of_B.device), right=True).tolist()
    grouped = bool((row_of_B[1:] >= row_of_B[:-1]).all())
    if not grouped or [0, *ends][-1] != len(row_of_B) or (len(row_of_B) > 0 and int(row_of_B[0]) < 0):
        raise ValueError(f"candidates are not grouped by user, or name a user beyond the {users} that are there")
    return [0, *ends]
