"""Batches of segments, and what each moment of a segment is to predict.

Shapes: U segments of at most L events, N different ids, P positions that predict, C different positive items of the
batch, O owners of positives, K (position, positive) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.contract import Contract, Role
from components.models.pinfm.config import PinFMConfig
from components.models.pinfm.negatives import Batched, ItemCounts
from components.models.pinfm.segments import LISTS, chosen, events_of
from components.models.pinfm.steps import Ints, Pairs, Steps
from components.models.tensors import Tensors

LOSSES = ("next_token", "multi_token", "future_token")


@dataclass(frozen=True)
class SegmentBatch(Tensors):
    """
    Attributes:
        key_N: int64 different ids, sorted.
        event_UL: int64 place of each event's id in `key_N`; action_UL, surface_UL: int64; length_U: int64.
        source_P: int64 events that predict, flat in [U, L]; owner_P: int64 whose positives are no negatives to them.
        candidate_C: int64 places in `key_N` of the batch's positive items.
        own_OC: bool, True where an item is a positive of the owner.
        log_q_C: float32 log of the chance that a batch has the item as a negative.
        source_K, target_K: int64 places in `source_P` and `candidate_C`; weight_K: float32; loss_K: int64 of `LOSSES`.
    """

    key_N: Tensor
    event_UL: Tensor
    action_UL: Tensor
    surface_UL: Tensor
    length_U: Tensor
    source_P: Tensor
    owner_P: Tensor
    candidate_C: Tensor
    own_OC: Tensor
    log_q_C: Tensor
    source_K: Tensor
    target_K: Tensor
    weight_K: Tensor
    loss_K: Tensor

    def __len__(self) -> int:
        return len(self.length_U)


class SegmentCollator:
    """Makes training batches of segments."""

    def __init__(self, config: PinFMConfig, contract: Contract, counts: ItemCounts) -> None:
        self.config, self.ties, self.counts = config, contract.ties, counts
        self.positive = contract.indices(Role.POSITIVE)

    def __call__(self, segments: pa.Table, rng: np.random.Generator) -> SegmentBatch:
        flat = {name: events_of(segments, name) for name in LISTS}
        length = segments["item_key"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        segment = np.repeat(np.arange(len(length)), length)
        key_N, item = np.unique(flat["item_key"], return_inverse=True)
        positive = chosen(flat["item_key"], flat["action"], self.positive)
        steps = Steps.of(segment, item, flat["timestamp"], positive, self.ties)
        pairs = self._pairs(steps, rng)
        source, target = (np.concatenate([getattr(p, name) for p in pairs]) for name in ("source", "target"))
        user = segments["user"].to_numpy()[segment]
        found = Batched.of(self.config, self.counts, flat["item_key"], user, positive, source, target)
        width = self.config.length
        slot = segment * width + np.arange(len(segment)) - np.repeat(np.cumsum(length) - length, length)
        grids = (("event", item), ("action", flat["action"]), ("surface", flat["surface"]))
        arrays = {
            "key_N": key_N,
            **{f"{name}_UL": _grid(values, slot, len(length), width) for name, values in grids},
            "length_U": length,
            "source_P": slot[found.source_P],
            "candidate_C": np.searchsorted(key_N, found.item_C),
            **{name: getattr(found, name) for name in ("owner_P", "own_OC", "log_q_C", "source_K", "target_K")},
            "weight_K": np.concatenate([p.weight for p in pairs]),
            "loss_K": np.repeat(np.arange(len(LOSSES)), [len(p.source) for p in pairs]),
        }
        return SegmentBatch(**{name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in arrays.items()})

    def _pairs(self, steps: Steps, rng: np.random.Generator) -> list[Pairs]:
        """Those of each loss, in the order of `LOSSES`; none of a loss without weight."""
        config, none = self.config, Pairs.mean(np.zeros(0, np.int64), np.zeros(0, np.int64))
        return [
            steps.next_token() if config.next_token else none,
            steps.multi_token(config.window, config.picks, rng) if config.multi_token else none,
            steps.future_token(config.window, config.downstream) if config.future_token else none,
        ]


def _grid(values: NDArray[Any], slot: Ints, segments: int, width: int) -> Ints:
    grid = np.zeros(segments * width, np.int64)
    grid[slot] = values
    return grid.reshape(segments, width)
