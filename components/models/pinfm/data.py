"""Histories as id-only segments, and what each moment of a segment is to predict.

A *step* is one action, or where equal times are unordered all actions at a time. A step predicts from its last event
and only what is strictly later: of a tied basket no item is to say another.

Shapes: U segments of at most L events, N different ids, P positions that predict, C different positive items of the
batch, O owners of positives, K (position, positive) pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.contract import Contract, Role, Ties
from components.history.keys import keys
from components.models.pinfm.config import PinFMConfig
from components.models.source import Piece, row_groups

COLUMNS = ["user_id", "item_key", "action", "surface", "timestamp"]
LISTS = COLUMNS[1:]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Cut:
    """How histories become segments.

    Attributes:
        stop: only events strictly before it (µs since epoch).
        length: events of a segment.
        most: newest events of a user, cut from the newest backwards; what is left over is a shorter segment, if it is
            more than one event.
    """

    stop: int
    length: int
    most: int

    def __call__(self, rows: pa.Table) -> pa.Table:
        """`histories` rows, their arrays newest first → one row per segment, arrays oldest first.

        `user` is the key of the user's id.
        """
        block = rows.combine_chunks()
        if not len(block):
            return pa.table(
                {"user": pa.array([], pa.int64()), **{n: pa.array([], rows.schema.field(n).type) for n in LISTS}}
            )
        lists = {name: block[name].chunk(0) for name in LISTS}
        flat = {name: column.flatten().to_numpy(zero_copy_only=False) for name, column in lists.items()}
        owner = np.repeat(np.arange(len(block)), lists["timestamp"].value_lengths().to_numpy(zero_copy_only=False))
        kept = flat["timestamp"] < self.stop
        begin, count = runs(owner[kept])
        age = np.arange(len(owner[kept])) - np.repeat(begin, count)
        count = np.minimum(count, self.most)
        alone = (count % self.length == 1) * count - 1
        inside = (age < self.most) & (age != np.repeat(alone, np.diff(np.append(begin, len(age)))))
        kept[kept] = inside
        segment = owner[kept] * (self.most // self.length + 1) + age[inside] // self.length
        # Reversed as a whole: oldest first within a segment.
        begin, count = runs(segment[::-1])
        offsets = pa.array(np.append(begin, kept.sum()), pa.int32())
        columns = {n: pa.ListArray.from_arrays(offsets, pa.array(flat[n][kept][::-1])) for n in LISTS}
        user = keys(block["user_id"].to_pylist())[owner[kept][::-1][begin]]
        return pa.table({"user": pa.array(user, pa.int64()), **columns})


def runs(values: Ints) -> tuple[Ints, Ints]:
    """Where each run of equal values begins, and how long it is."""
    begin = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
    return begin, np.diff(np.append(begin, len(values)))


@dataclass(frozen=True)
class SegmentPiece(Piece):
    """Segments [start, stop) of one row group of `histories`."""

    cut: Cut

    def read(self, columns: list[str]) -> pa.Table:
        with pq.ParquetFile(self.file) as f:
            return self.cut(f.read_row_group(self.group, columns=columns)).slice(self.start, len(self))


@dataclass(frozen=True)
class ItemCounts:
    """How often each item was a positive.

    Attributes:
        key_I: int64, sorted; count_I: int64.
    """

    key_I: Ints
    count_I: Ints

    def probability(self, key: Ints) -> NDArray[np.float64]:
        """Share of all positives that each item is; an item never seen counts as one."""
        total = max(1, int(self.count_I.sum()))
        at = np.minimum(np.searchsorted(self.key_I, key), len(self.key_I) - 1)
        return np.where(self.key_I[at] == key, self.count_I[at], 1) / total


@dataclass(frozen=True)
class Segments:
    """All that is to be trained on.

    Attributes:
        counts: of the positive actions.
        first: time of the first event (µs since epoch).
    """

    pieces: list[Piece]
    counts: ItemCounts
    first: int

    @classmethod
    def of(cls, files: list[str], cut: Cut, positive: list[int]) -> Self:
        """One pass over `histories`; memory is that of a row group and of the different items."""
        pieces: list[Piece] = []
        key, count, first = np.zeros(0, np.int64), np.zeros(0, np.int64), cut.stop
        for group in row_groups(files):
            segments = cut(group.read(COLUMNS))
            if len(segments):
                pieces.append(SegmentPiece(group.file, group.group, 0, len(segments), cut))
                more = events_of(segments, "item_key")[np.isin(events_of(segments, "action"), positive)]
                key, count = _add_up(np.concatenate([key, more]), np.concatenate([count, np.ones(len(more), np.int64)]))
                first = min(first, int(events_of(segments, "timestamp").min()))
        return cls(pieces, ItemCounts(key, count), first)


def _add_up(key: Ints, count: Ints) -> tuple[Ints, Ints]:
    distinct, place = np.unique(key, return_inverse=True)
    return distinct, np.bincount(place, count, len(distinct)).astype(np.int64)


def events_of(segments: pa.Table, column: str) -> Any:
    """One column of all events, segment after segment. [M]."""
    chunks = segments[column].combine_chunks()
    chunk = chunks.chunk(0) if isinstance(chunks, pa.ChunkedArray) else chunks
    return chunk.flatten().to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Pairs:
    """Which event predicts what: `source` and `target` are events [K], `weight` sums to 1 over those that predict."""

    source: Ints
    target: Ints
    weight: NDArray[np.float32]

    @classmethod
    def mean(cls, source: Ints, target: Ints) -> Self:
        """Each source the mean of its pairs, the whole the mean of its sources."""
        _, place, count = np.unique(source, return_inverse=True, return_counts=True)
        return cls(source, target, (1 / (count[place] * max(1, len(count)))).astype(np.float32))


@dataclass(frozen=True)
class Steps:
    """Events as steps, for the losses of section 3.2. M events, T steps, G positive events.

    Attributes:
        segment_M, item_M: segment and item of each event; step_M: its step.
        last_T: last event of each step; final_T: the last step of its segment.
        positive_G: the positive events, in order.
        bound_T: how many positive events come before each step [T + 1].
    """

    segment_M: Ints
    item_M: Ints
    step_M: Ints
    last_T: Ints
    final_T: Ints
    positive_G: Ints
    bound_T: Ints

    @classmethod
    def of(cls, segment_M: Ints, item_M: Ints, time_M: Ints, positive_M: Bools, ties: Ties) -> Self:
        begins = np.ones(len(segment_M), bool)
        if ties is Ties.UNORDERED:
            begins[1:] = (np.diff(segment_M) != 0) | (np.diff(time_M) != 0)
        step_M = np.cumsum(begins) - 1
        last_T = np.flatnonzero(np.append(begins[1:], True))
        _, in_segment = runs(segment_M[last_T])
        final_T = np.repeat(np.cumsum(in_segment) - 1, in_segment)
        positive_G = np.flatnonzero(positive_M)
        bound_T = np.searchsorted(step_M[positive_G], np.arange(len(last_T) + 1))
        return cls(segment_M, item_M, step_M, last_T, final_T, positive_G, bound_T)

    def next_token(self) -> Pairs:
        """L_ntl: each step and the positive items of the next one."""
        return self._all(np.arange(len(self.last_T)), self.last_T, 1)

    def multi_token(self, window: int, picks: int, rng: np.random.Generator) -> Pairs:
        """L_mtl: each step and `picks` positives, drawn with replacement, of those in the `window` steps after it.

        Args:
            picks: 0 = all of them.
        """
        if not picks:
            return self._all(np.arange(len(self.last_T)), self.last_T, window, distinct=False)
        low, high = self._ahead(np.arange(len(self.last_T)), window)
        some = high > low
        drawn = low[some, None] + (rng.random((int(some.sum()), picks)) * (high - low)[some, None]).astype(np.int64)
        return Pairs.mean(np.repeat(self.last_T[some], picks), self.positive_G[drawn.ravel()])

    def future_token(self, window: int, downstream: int) -> Pairs:
        """L_ftl: event number `downstream` of each segment and all positives of the `window` steps after its own."""
        begin, count = runs(self.segment_M)
        event = begin[count > downstream] + downstream - 1
        return self._all(self.step_M[event], event, window, distinct=False)

    def _ahead(self, step: Ints, window: int) -> tuple[Ints, Ints]:
        """Range of positive events in the `window` steps after each `step` of the same segment."""
        until = np.minimum(step + window, self.final_T[step]) + 1
        return self.bound_T[step + 1], self.bound_T[until]

    def _all(self, step: Ints, event: Ints, window: int, distinct: bool = True) -> Pairs:
        """Each `event` of a `step` with all positives ahead; `distinct`: as a set of items."""
        low, high = self._ahead(step, window)
        size = high - low
        place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size) + np.repeat(low, size)
        source, target = np.repeat(event, size), self.positive_G[place]
        if distinct and len(source):
            _, first = np.unique(source * len(self.item_M) + self.item_M[target], return_index=True)
            source, target = source[first], target[first]
        return Pairs.mean(source, target)


LOSSES = ("next_token", "multi_token", "future_token")


@dataclass(frozen=True)
class SegmentBatch:
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

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(*(change(getattr(self, f.name)) for f in fields(self)))

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._map(lambda t: t.pin_memory())


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
        positive = np.isin(flat["action"], self.positive)
        steps = Steps.of(segment, item, flat["timestamp"], positive, self.ties)
        pairs = self._pairs(steps, rng)
        source, target = (np.concatenate([getattr(p, name) for p in pairs]) for name in ("source", "target"))
        source_P, source_K = np.unique(source, return_inverse=True)
        candidate, place = np.unique(item[positive], return_inverse=True)
        column = np.full(len(flat["action"]), -1)
        column[positive] = place
        user = np.unique(segments["user"].to_numpy(), return_inverse=True)[1][segment]
        owner_P, own = self._own(user, source_P, source_K, column, column[target], len(candidate))
        width = self.config.length
        slot = segment * width + np.arange(len(segment)) - np.repeat(np.cumsum(length) - length, length)
        arrays = {
            "key_N": key_N,
            **{
                f"{n}_UL": _grid(v, slot, len(length), width)
                for n, v in (("event", item), ("action", flat["action"]), ("surface", flat["surface"]))
            },
            "length_U": length,
            "source_P": slot[source_P],
            "owner_P": owner_P,
            "candidate_C": candidate,
            "own_OC": own,
            "log_q_C": self._log_q(key_N[candidate], int(positive.sum())),
            "source_K": source_K,
            "target_K": column[target],
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

    def _own(
        self, user: Ints, source_P: Ints, source_K: Ints, column: Ints, target_K: Ints, candidates: int
    ) -> tuple[Ints, Bools]:
        """Owner of each position, and its own positives [O, C]: its user's, or only what the position leads to."""
        if self.config.exclude_same_user:
            own = np.zeros((int(user.max(initial=-1)) + 1, candidates), np.bool_)
            own[user[column >= 0], column[column >= 0]] = True
            return user[source_P], own
        own = np.zeros((len(source_P), candidates), np.bool_)
        own[source_K, target_K] = True
        return np.arange(len(source_P)), own

    def _log_q(self, key: Ints, positives: int) -> NDArray[np.float32]:
        """log(1 − (1 − p)^n) of items that are a share p of all positives, for a batch of n."""
        if not self.config.log_q:
            return np.zeros(len(key), np.float32)
        chance = -np.expm1(positives * np.log1p(-np.minimum(self.counts.probability(key), 0.5)))
        return np.log(chance).astype(np.float32)


def _grid(values: NDArray[Any], slot: Ints, segments: int, width: int) -> Ints:
    grid = np.zeros(segments * width, np.int64)
    grid[slot] = values
    return grid.reshape(segments, width)
