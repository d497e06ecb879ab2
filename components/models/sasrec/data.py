"""Histories become steps. Actions of one user at one time are one step where the data set says so, and a step never
predicts its own items: their stored order is no information.

Shapes: M items in all steps, P steps, U users, T steps of the longest user, K (step, target) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.contract import Contract, Role, Ties
from components.models.tensors import Tensors

COLUMNS = ["item", "action", "timestamp"]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class StepBatch(Tensors):
    """The newest steps of some users, oldest first.

    Attributes:
        item_M: int64 item rows, step after step; offset_P: int64 where each step begins.
        slot_P: int64 place of each step in a [U, T] grid, flat.
        age_P: int64 number of the user's later steps: the position, newest = 0.
        users, length: U and T, int64 scalars.
        source_K: int64 step that predicts; target_K: int64 item of the user's next step.
    """

    item_M: Tensor
    offset_P: Tensor
    slot_P: Tensor
    age_P: Tensor
    users: Tensor
    length: Tensor
    source_K: Tensor
    target_K: Tensor


@dataclass(frozen=True)
class Steps:
    """Positive actions of users as steps: `item` [M] in `step` [M]; steps have `user` and `time` [P], oldest first."""

    item: Ints
    step: Ints
    user: Ints
    time: Ints


def steps_of(rows: pa.Table, contract: Contract, stop: int) -> Steps:
    """Steps before `stop` (µs since epoch) of `histories` rows, whose arrays are newest first."""
    block = rows.combine_chunks()
    lists = {name: block[name].chunk(0) for name in COLUMNS} if len(block) else {}
    flat: dict[str, Any] = {name: column.flatten().to_numpy(zero_copy_only=False) for name, column in lists.items()}
    if not flat:
        return Steps(*(np.zeros(0, np.int64) for _ in range(4)))
    lengths = lists["item"].value_lengths().to_numpy(zero_copy_only=False)
    user = np.repeat(np.arange(len(block)), lengths)
    positive = [contract.action_index[a] for a in contract.names(Role.POSITIVE)]
    keep = np.isin(flat["action"], positive) & (flat["item"] > 0) & (flat["timestamp"] < stop)
    # Reversed as a whole: within a user oldest first; that the users come in the opposite order does not matter.
    item, time, user = (v[keep][::-1].astype(np.int64) for v in (flat["item"], flat["timestamp"], user))
    begins = np.ones(len(item), bool)
    if contract.ties is Ties.UNORDERED:
        begins[1:] = (np.diff(user) != 0) | (np.diff(time) != 0)
    return Steps(item, np.cumsum(begins) - 1, user[begins], time[begins])


def collate(
    rows: pa.Table,
    contract: Contract,
    *,
    stop: int,
    length: int,
    since: int | None = None,
    rng: np.random.Generator | None = None,
) -> StepBatch:
    """The newest `length` steps before `stop` of each user, and what they predict.

    Args:
        rows: `histories` rows with `COLUMNS`.
        since: only steps at or after this moment are targets (µs since epoch).
        rng: a user with more steps than fit gets a random window of them instead of the newest.
    """
    steps = steps_of(rows, contract, stop)
    keep = _window(steps.user, length + 1, rng)
    number = np.cumsum(keep) - 1
    user, time = steps.user[keep], steps.time[keep]
    inside = keep[steps.step]
    item, step = steps.item[inside], number[steps.step[inside]]
    begin, count = _runs(user)
    place = np.arange(len(user)) - np.repeat(begin, count)
    target = (place[step] > 0) & (since is None or time[step] >= since)
    tensors = (
        item,
        np.searchsorted(step, np.arange(len(user))),
        np.repeat(np.arange(len(begin)), count) * (length + 1) + place,
        np.repeat(count, count) - 1 - place,
        np.int64(len(begin)),
        np.int64(length + 1),
        step[target] - 1,
        item[target],
    )
    return StepBatch(*(torch.as_tensor(np.asarray(t, np.int64)) for t in tensors))


def _runs(user: Ints) -> tuple[Ints, Ints]:
    """Where each run of equal values begins, and how long it is."""
    begin = np.flatnonzero(np.diff(user, prepend=-1))
    return begin, np.diff(np.append(begin, len(user)))


def _window(user: Ints, size: int, rng: np.random.Generator | None) -> NDArray[np.bool_]:
    """Which steps to keep: at most `size` consecutive ones of each user, the newest unless drawn by `rng`."""
    begin, count = _runs(user)
    spare = np.maximum(count - size, 0)
    skip = spare if rng is None else rng.integers(spare + 1)
    at = np.arange(len(user)) - np.repeat(begin, count)
    low = np.repeat(skip, count)
    return (at >= low) & (at < low + size)
