"""Batches of pairs with their negatives and the sub-graph that their vectors need.

Shapes: B pairs, S negatives shared by all of them, H hard negatives of each; nodes are those of the sub-graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from components.models.pinsage.catalogue import Catalogue
from components.models.pinsage.config import PinSageConfig
from components.models.pinsage.subgraph import Subgraph, SubgraphBuilder
from components.models.tensors import Tensors

COLUMNS = ["query", "positive", "weight"]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class PairBatch(Tensors):
    """
    Attributes:
        query_B, positive_B, negative_S, hard_BH: int64 nodes of `graph`; 0 = no hard negative.
        allowed_BN: bool [B, S + H]; False where a negative is the query itself or one of its known positives.
        log_q_S: float32 log of how often each shared negative is expected in a batch.
        weight_B: float32 weight of each pair.
    """

    graph: Subgraph
    query_B: Tensor
    positive_B: Tensor
    negative_S: Tensor
    hard_BH: Tensor
    allowed_BN: Tensor
    log_q_S: Tensor
    weight_B: Tensor

    def __len__(self) -> int:
        return len(self.query_B)


@dataclass(frozen=True)
class KnownPairs:
    """The known positives of every item, as CSR: `positives[offsets[q]:offsets[q + 1]]`, int32, sorted."""

    offsets: NDArray[np.int64]
    positives: Ints

    @classmethod
    def of(cls, query: Ints, positive: Ints, items: int) -> Self:
        """Distinct pairs of int32 [P] each, in any order."""
        codes = np.unique(query.astype(np.int64) * items + positive)
        counts = np.bincount(codes // items, minlength=items)
        return cls(np.concatenate([[0], np.cumsum(counts)]), (codes % items).astype(np.int32))

    @classmethod
    def read(cls, files: list[str], items: int) -> Self:
        frame = pl.scan_parquet(files).select("query", "positive").unique().collect(engine="streaming")
        return cls.of(frame["query"].to_numpy(), frame["positive"].to_numpy(), items)

    def allowed(self, query_B: Ints, shared_S: Ints, hard_BH: Ints) -> Bools:
        """Which negatives are not the query, nor a known positive of it, nor padding. [B, S + H]."""
        result = np.empty((len(query_B), len(shared_S) + hard_BH.shape[1]), np.bool_)
        first = np.full(len(self.offsets), -1, np.int32)
        _allowed(self.offsets, self.positives, query_B, shared_S, hard_BH, first, result)
        return result


@njit(cache=True, nogil=True)
def _allowed(
    offsets: NDArray[np.int64], positives: Ints, query: Ints, shared: Ints, hard: Ints, first: Ints, result: Bools
) -> None:
    """`KnownPairs.allowed`. A query's positives are looked up among the negatives, not the other way round.

    Args:
        first: int32 [N], −1 everywhere.
    """
    following = np.empty(len(shared), np.int32)
    for s in range(len(shared) - 1, -1, -1):
        following[s] = first[shared[s]]
        first[shared[s]] = s
    first[0] = -1
    for b in range(len(query)):
        known = positives[offsets[query[b]] : offsets[query[b] + 1]]
        for n in range(len(shared)):
            result[b, n] = shared[n] != query[b] and shared[n] != 0
        for item in known:
            s = first[item]
            while s >= 0:
                result[b, s] = False
                s = following[s]
        for h in range(hard.shape[1]):
            at = np.searchsorted(known, hard[b, h])
            met = at < len(known) and known[at] == hard[b, h]
            result[b, len(shared) + h] = not (met or hard[b, h] == query[b] or hard[b, h] == 0)
    for item in shared:
        first[item] = -1


class PairCollator:
    """Makes training batches of rows of pairs.

    Attributes:
        hard: hard negatives per pair from now on (the curriculum moves it between epochs).
    """

    def __init__(self, config: PinSageConfig, catalogue: Catalogue, known: KnownPairs) -> None:
        self.config, self.known = config, known
        self.hard = 0
        self.read(catalogue)
        # One more than its boards: an item on none that is never a negative would stand above all others.
        weight = (1.0 + catalogue.degree) ** config.negative_power
        weight[0] = 0
        self._cumulative = np.cumsum(weight)
        followed = np.bincount(known.positives, minlength=len(catalogue))
        self._scarcity = np.maximum(followed, 1).astype(np.float32) ** -config.positive_power

    def read(self, catalogue: Catalogue) -> None:
        """From now on these neighbourhoods of the same items."""
        self.catalogue, self._builder = catalogue, SubgraphBuilder(catalogue, self.config.layers)

    def __call__(self, rows: pa.Table, rng: np.random.Generator) -> PairBatch:
        query, positive, weight = (rows[name].to_numpy() for name in COLUMNS)
        shared, hard = self._shared(rng), self._hard(query, rng)
        parts = query, positive, shared, hard.ravel()
        graph, nodes = self._builder.build(np.concatenate(parts).astype(np.int32))
        node = np.split(nodes.astype(np.int64), np.cumsum([len(p) for p in parts])[:-1])
        tensors = {
            "query_B": node[0],
            "positive_B": node[1],
            "negative_S": node[2],
            "hard_BH": node[3].reshape(hard.shape),
            "allowed_BN": self.known.allowed(query.astype(np.int32), shared, hard),
            "log_q_S": self._log_expected(shared),
            "weight_B": weight.astype(np.float32) * self._scarcity[positive],
        }
        return PairBatch(graph=graph, **{k: torch.from_numpy(v) for k, v in tensors.items()})

    def _shared(self, rng: np.random.Generator) -> Ints:
        """Negatives of the whole batch, with replacement. int32 [S]."""
        drawn = rng.random(self.config.negatives) * self._cumulative[-1]
        return np.searchsorted(self._cumulative, drawn, side="right").astype(np.int32)

    def _log_expected(self, rows: Ints) -> NDArray[np.float32]:
        weight = self._cumulative[rows] - self._cumulative[rows - 1]
        return np.log(self.config.negatives * weight / self._cumulative[-1]).astype(np.float32)

    def _hard(self, query: Ints, rng: np.random.Generator) -> Ints:
        """Some of each query's band. int32 [B, hard], 0 where the band is short."""
        width = self.catalogue.band.shape[1]
        if not self.hard or not width:
            return np.zeros((len(query), 0), np.int32)
        column = rng.integers(width, size=(len(query), self.hard))
        return np.ascontiguousarray(self.catalogue.band[query[:, None], column], np.int32)


@dataclass(frozen=True)
class QueryBatch(Tensors):
    """Held-out pairs of a few queries: which rows of the catalogue should be near.

    Attributes:
        query_Q: int64 rows of the item table, distinct.
        owner_P: int64 place in `query_Q`; positive_P: int64 rows; weight_P: float32.
    """

    query_Q: Tensor
    owner_P: Tensor
    positive_P: Tensor
    weight_P: Tensor


def query_batches(pairs: pl.DataFrame, queries: int) -> list[QueryBatch]:
    """Pairs grouped by query, `queries` at a time."""
    query, owner = np.unique(pairs["query"].to_numpy(), return_inverse=True)
    order = np.argsort(owner, kind="stable")
    positive, weight = pairs["positive"].to_numpy()[order], pairs["weight"].to_numpy()[order]
    owner = owner[order]
    batches = []
    for start in range(0, len(query), queries):
        a, b = np.searchsorted(owner, [start, start + queries])
        arrays = query[start : start + queries], owner[a:b] - start, positive[a:b]
        rows, owners, positives = (torch.from_numpy(np.asarray(x, np.int64)) for x in arrays)
        batches.append(QueryBatch(rows, owners, positives, torch.from_numpy(np.asarray(weight[a:b], np.float32))))
    return batches
