"""The twin of `components.graph.walks` on any torch device, all walks of a batch of items at once; equal to the bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.graph import draws
from components.graph.alias import AliasTables, tables_of
from components.graph.bipartite import BipartiteGraph, Nodes, Offsets
from components.graph.kernels import GATHER, LOW, MOST, SCATTER
from components.graph.neighbours import Neighbourhoods
from components.graph.walks import WalkConfig, Walked, band_ranks
from components.graph.walks_plain import in_order

VISITS = 4_000_000
"""Visits held at once: bounds the memory of a batch."""

UNSEEN = 2**63 - 1


@dataclass(frozen=True)
class _Side:
    """Neighbours of one side's nodes on the device. `keep` is [0] when draws are uniform."""

    offsets: Tensor
    nodes: Tensor
    keep: Tensor
    other: Tensor

    @classmethod
    def of(cls, offsets: Offsets, nodes: Nodes, tables: AliasTables, device: torch.device) -> _Side:
        arrays = (offsets, nodes, tables.keep.astype(np.int64), tables.other)
        return cls(*(torch.from_numpy(np.array(a)).to(device) for a in arrays))

    def neighbour(self, at: Tensor, r: Tensor) -> Tensor:
        """A neighbour of each node, by the draws `r`. int64 [n, W] both."""
        first = self.offsets[at]
        slot = (_shift_right(r, 32) * (self.offsets[at + 1] - first)) >> 32
        if len(self.keep):
            slot = torch.where((r & LOW) > self.keep[first + slot], self.other[first + slot].long(), slot)
        return self.nodes[first + slot].long()


class TorchWalker:
    """As `components.graph.walks.Walker`, on `device`."""

    def __init__(self, graph: BipartiteGraph, config: WalkConfig, device: torch.device | str = "cpu") -> None:
        self.graph, self.config, self.device = graph, config, torch.device(device)
        of_items, of_boards = tables_of(graph)
        self.items = _Side.of(graph.item_offsets, graph.item_boards, of_items, self.device)
        self.boards = _Side.of(graph.board_offsets, graph.board_items, of_boards, self.device)
        order = in_order(np.arange(config.walks * config.length).reshape(config.walks, config.length))
        self.order = torch.from_numpy(order).to(self.device)

    def walk(self, items: Nodes | None = None) -> Walked:
        starts = np.arange(self.graph.items, dtype=np.int32) if items is None else np.asarray(items, np.int32)
        walked = _empty(len(starts), self.config)
        linked = np.flatnonzero(self.graph.degree[starts])
        batch = max(1, VISITS // (self.config.walks * self.config.length))
        for first in range(0, len(linked), batch):
            at = linked[first : first + batch]
            self._batch(torch.from_numpy(starts[at]).to(self.device).long(), walked, at)
        return walked

    def _batch(self, start: Tensor, out: Walked, at: Offsets) -> None:
        visits = self._visits(start)
        hops = torch.full_like(start, visits.shape[1])
        if self.config.early_stop is not None:
            visits, hops = self._stopped(visits, self.config.early_stop)
        code = _ranked(visits, start)
        reached = (code < UNSEEN).sum(1)
        out.hops[at], out.reached[at] = hops.cpu().numpy(), reached.cpu().numpy()
        rows, weights = _top(code[:, : self.config.top], start)
        out.neighbourhoods.rows[at, : rows.shape[1]] = rows.cpu().numpy()
        out.neighbourhoods.weights[at, : rows.shape[1]] = weights.cpu().numpy()
        out.band[at] = self._band(code, start, out.reached[at])

    def _visits(self, start: Tensor) -> Tensor:
        """Visits in the order in which they count, int64 [n, walks × length]; 0 = back at the start."""
        config = self.config
        stream = _streams(draws.key_of(config.seed), start, config.walks)
        home = start[:, None].expand_as(stream)
        at, visits = home, []
        for hop in range(config.length):
            if hop:
                again = _shift_right(_draw(stream, 3 * hop), 32) < draws.share(config.restart)
                at = torch.where(again, home, at)
            board = self.items.neighbour(at, _draw(stream, 3 * hop + 1))
            at = self.boards.neighbour(board, _draw(stream, 3 * hop + 2))
            visits.append(at)
        flat = torch.stack(visits, dim=2).flatten(1)[:, self.order]
        return torch.where(flat == start[:, None], 0, flat)

    def _stopped(self, visits: Tensor, enough: int) -> tuple[Tensor, Tensor]:
        """Visits up to the one that gives the last of `top` items enough of them, and how many hops that takes."""
        ordered, at = visits.sort(dim=1, stable=True)
        place = torch.arange(visits.shape[1], device=visits.device)
        begins = torch.where(_new(ordered), place, 0).cummax(1).values
        nth = torch.empty_like(visits).scatter_(1, at, place - begins + 1)
        full = ((nth == enough) & (visits > 0)).cumsum(1)
        hops = (full < self.config.top).sum(1).add(1).clamp(max=visits.shape[1])
        return torch.where(place < hops[:, None], visits, 0), hops

    def _band(self, code: Tensor, start: Tensor, reached: Nodes) -> Nodes:
        bounds = np.array([band_ranks(self.config, int(r)) for r in reached])
        size = bounds[:, 1] - bounds[:, 0]
        kept = np.minimum(size, self.config.band_size)[:, None]
        j = np.arange(self.config.band_size)
        rank = np.where(j < kept, bounds[:, :1] + j * size[:, None] // np.maximum(kept, 1), 0)
        found = _item(code.gather(1, torch.from_numpy(rank).to(code.device)), start[:, None]).cpu().numpy()
        return np.where(j < kept, found, 0).astype(np.int32)


def _empty(n: int, config: WalkConfig) -> Walked:
    near = Neighbourhoods(np.zeros((n, config.top), np.int32), np.zeros((n, config.top), np.float32))
    return Walked(near, np.zeros((n, config.band_size), np.int32), np.zeros(n, np.int32), np.zeros(n, np.int32))


def _new(ordered: Tensor) -> Tensor:
    """Where a run of equal values begins, [n, M]."""
    first = torch.ones_like(ordered[:, :1], dtype=torch.bool)
    return torch.cat([first, ordered[:, 1:] != ordered[:, :-1]], dim=1)


def _ranked(visits: Tensor, start: Tensor) -> Tensor:
    """Sorted (MOST − count, salted row) of the items visited, [n, M]; `UNSEEN` behind them."""
    ordered = visits.sort(dim=1).values
    run = _new(ordered).long().cumsum(1) - 1
    count = torch.zeros_like(ordered).scatter_add_(1, run, torch.ones_like(ordered))
    item = torch.zeros_like(ordered).scatter_(1, run, ordered)
    salted = ((item ^ start[:, None]) * SCATTER) & LOW
    return torch.where(item > 0, ((MOST - count) << 32) | salted, UNSEEN).sort(dim=1).values


def _item(code: Tensor, start: Tensor) -> Tensor:
    return (((code & LOW) * GATHER) & LOW) ^ start


def _top(code: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    seen = code < UNSEEN
    by_row = torch.where(seen, ((code >> 32) << 32) | _item(code, start[:, None]), UNSEEN).sort(dim=1).values
    count = torch.where(seen, MOST - (by_row >> 32), 0)
    total = count.sum(1, keepdim=True).clamp(min=1)
    # Both are whole numbers below 2^24: the quotient is rounded once, as in the other twins.
    return torch.where(seen, by_row & LOW, 0), count.float() / total.float()


# -- the draws of `components.graph.draws`, with int64 taken as 64 bits ---------------------------------------


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x


def _shift_right(x: Tensor, by: int) -> Tensor:
    """Logical shift of int64 taken as 64 bits."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(draws.M1)
    x = (x ^ _shift_right(x, 27)) * _signed(draws.M2)
    return x ^ _shift_right(x, 31)


def _streams(key: int, items: Tensor, walks: int) -> Tensor:
    """int64 [n] → int64 [n, walks]."""
    numbered = (items.long() << 32)[:, None] | torch.arange(walks, device=items.device)
    return _mix(numbered + _signed(key))


def _draw(stream: Tensor, k: int) -> Tensor:
    return _mix(stream + _signed((k + 1) * draws.GOLDEN % 2**64))
