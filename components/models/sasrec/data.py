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
from components.evaluation.next_items import Questions
from components.models.tensors import Tensors

COLUMNS = ["item", "action", "timestamp"]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class StepBatch(Tensors):
    """The newest steps of some users, oldest first.

    Attributes:
        item_M: int64 item rows, step after step; offset_P: int64 where each step begins.
        slot_P: int64 place of each step in a [U, T] grid, flat.
        age_P: int64 the position, counted back from the last step that is predicted.
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
    return _grouped(item, time, user, contract.ties is Ties.ORDERED)


def _grouped(item: Ints, time: Ints, user: Ints, ordered: bool) -> Steps:
    """Actions as steps; all [M], each user's together and oldest first."""
    begins = np.ones(len(item), bool)
    if not ordered:
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
    steps = _newest(steps_of(rows, contract, stop), length + 1, rng)
    begin, count = _runs(steps.user)
    place = np.arange(len(steps.user)) - np.repeat(begin, count)
    target = (place[steps.step] > 0) & (since is None or steps.time[steps.step] >= since)
    return _batch(steps, length + 1, 0, steps.step[target] - 1, steps.item[target])


def before(
    questions: Questions, asked: Ints, row_M: Ints, *, positive: list[int], ordered: bool, length: int
) -> tuple[StepBatch, Ints, Ints]:
    """The newest `length` steps before each question.

    Args:
        asked: numbers of the questions.
        row_M: the model's rows of the items of `questions.events`.
        positive: action indices that make steps; `ordered`: whether equal times are steps of their own.

    Returns:
        A batch without targets, and for the asked that have any step: their places in `asked` and their last steps.
    """
    begin, end = questions.begin_Q[asked], questions.end_Q[asked]
    owner = np.repeat(np.arange(len(asked)), end - begin)
    at = np.arange(len(owner)) + np.repeat(end - np.cumsum(end - begin), end - begin)
    events = questions.events
    keep = np.isin(events["action"][at], positive) & (events["item"][at] > 0)
    steps = _grouped(row_M[at][keep], events["timestamp"][at][keep], owner[keep], ordered)
    steps = _newest(steps, length, None)
    first, count = _runs(steps.user)
    none = np.zeros(0, np.int64)
    # As in training, where the newest step is what the one before it leads to.
    return _batch(steps, length, 1, none, none), steps.user[first], first + count - 1


def _batch(steps: Steps, width: int, newest: int, source: Ints, target: Ints) -> StepBatch:
    """Steps of each user in a row of `width`, the newest at position `newest`."""
    begin, count = _runs(steps.user)
    place = np.arange(len(steps.user)) - np.repeat(begin, count)
    tensors = (
        steps.item,
        np.searchsorted(steps.step, np.arange(len(steps.user))),
        np.repeat(np.arange(len(begin)), count) * width + place,
        np.repeat(count, count) - 1 - place + newest,
        np.int64(len(begin)),
        np.int64(width),
        source,
        target,
    )
    return StepBatch(*(torch.as_tensor(np.asarray(t, np.int64)) for t in tensors))


def _newest(steps: Steps, size: int, rng: np.random.Generator | None) -> Steps:
    """At most `size` steps of each user."""
    keep = _window(steps.user, size, rng)
    inside = keep[steps.step]
    number = np.cumsum(keep) - 1
    return Steps(steps.item[inside], number[steps.step[inside]], steps.user[keep], steps.time[keep])


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
