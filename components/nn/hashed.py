"""Hashed embedding of ids without a vocabulary: J sub-tables, one row of each, side by side (PinFM, section 3.1).

The sub-tables are one matrix. A rank of several holds an equal range of its rows and asks the others for theirs, so
that a table larger than one worker's memory trains; values, gradients and steps are those of the whole table.

Shapes: J sub-tables of R rows, w wide; K different keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

INIT_BLOCK = 16_384
"""Rows that are drawn together: initial values do not depend on how many ranks there are."""


def _signed(value: int) -> int:
    """The int64 with the bits of a uint64."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


GOLDEN = 0x9E3779B97F4A7C15
FINALISER = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)), (31, 1))
"""Of splitmix64: (shift, factor)."""


@dataclass(frozen=True)
class Shard:
    """Which of `world` equal ranges of rows a process holds."""

    rank: int = 0
    world: int = 1

    @classmethod
    def here(cls) -> Self:
        """This process's own among those that train together."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()


_later: ContextVar[bool] = ContextVar("later", default=False)


@contextmanager
def without_rows() -> Iterator[None]:
    """Tables that are made inside have no memory: a file, or `draw`, gives them their rows afterwards."""
    token = _later.set(True)
    try:
        yield
    finally:
        _later.reset(token)


class HashedTables(nn.Module):
    """Vectors of `components.history.keys.key` values; of negative ones (no item) the zero vector.

    Args:
        tables, rows, width: J, R and w; the vector is J · w wide.
        sparse: gradients name only the rows that were looked up, for `RowWiseAdagrad` or `SparseAdam`.
        seed: of the initial values. The hash is the same in every process and version, whatever the seed.
        shard: which rows are here.
    """

    offset_J: Tensor
    begin_J: Tensor

    def __init__(
        self, tables: int, rows: int, width: int, *, sparse: bool = False, seed: int = 0, shard: Shard | None = None
    ) -> None:
        super().__init__()
        self.tables, self.rows, self.width, self.sparse = tables, rows, width, sparse
        self.shard = shard or Shard()
        self.share = -(-tables * rows // self.shard.world)
        self.gather: Callable[[Tensor], Tensor] | None = None
        self.weight = nn.Parameter(torch.empty(self.share, self.width, device="meta"))
        if not _later.get():
            self.draw(seed)
        offsets = [_signed((j + 1) * GOLDEN) for j in range(tables)]
        self.register_buffer("offset_J", torch.tensor(offsets, dtype=torch.int64), persistent=False)
        self.register_buffer("begin_J", torch.arange(tables) * rows, persistent=False)

    @property
    def dim(self) -> int:
        return self.tables * self.width

    @property
    def first(self) -> int:
        """Row of the whole matrix that is the first here."""
        return self.shard.rank * self.share

    def draw(self, seed: int) -> None:
        """Begin anew: this rank's rows, N(0, 1/(J·w)): a vector has about unit length. [share, w]."""
        weight = torch.empty(self.share, self.width)
        first, last = self.first, self.first + self.share
        for block in range(first // INIT_BLOCK, -(-last // INIT_BLOCK)):
            generator = torch.Generator().manual_seed((seed * 1_000_003 + block) % 2**63)
            drawn = torch.randn(INIT_BLOCK, self.width, generator=generator) * self.dim**-0.5
            begin = block * INIT_BLOCK
            a, b = max(begin, first), min(begin + INIT_BLOCK, last)
            weight[a - first : b - first] = drawn[a - begin : b - begin]
        self.weight = nn.Parameter(weight, requires_grad=self.weight.requires_grad)

    def rows_of(self, key: Tensor) -> Tensor:
        """Rows of the whole matrix. int64 [...] ≥ 0 → int64 [..., J]; sub-table j is rows [j·R, (j + 1)·R).

        Seeded splitmix64 (`components.history.keys.mix`) without its lowest bit, modulo R.
        """
        x = key[..., None] + self.offset_J
        for shift, factor in FINALISER:
            x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * factor
        return ((x >> 1) & (2**63 - 1)) % self.rows + self.begin_J

    def forward(self, key: Tensor) -> Tensor:
        """int64 [...] → float32 [..., J · w]. With several ranks all of them must call it as often."""
        distinct, place = torch.unique(key, return_inverse=True)
        absent = int((distinct < 0).sum())
        rows = self.rows_of(distinct[absent:])
        found = self._vectors(rows.flatten()).view(len(rows), self.dim)
        return F.embedding(place, F.pad(found, (0, 0, absent, 0)))

    def read_from(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Serve the rows of another table, int64 [n] → float32 [n, w], and hold none here."""
        self.gather = gather
        self.weight = nn.Parameter(torch.empty(0, self.width), requires_grad=False)

    def _vectors(self, row: Tensor) -> Tensor:
        if self.gather is not None:
            return self.gather(row)
        if self.shard.world == 1:
            return F.embedding(row, self.weight, sparse=self.sparse)
        out: Tensor = _Exchange.apply(self.weight, row, self)
        return out


class _Exchange(torch.autograd.Function):
    """Rows asked of the ranks that hold them; gradients go the same way back.

    A gradient is the mean over the ranks, as DDP makes it for all other weights.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, row: Tensor, tables: HashedTables) -> Tensor:
        owner = row // tables.share
        ctx.order = torch.argsort(owner, stable=True)
        sent = torch.bincount(owner, minlength=tables.shard.world)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        ctx.sent, ctx.received = sent.tolist(), received.tolist()
        ctx.asked = _trade(row[ctx.order], ctx.sent, ctx.received) - tables.first
        ctx.tables = tables
        answer = _trade(weight[ctx.asked], ctx.received, ctx.sent)
        return torch.empty_like(answer).index_copy_(0, ctx.order, answer)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        grad = _trade(grads[0][ctx.order], ctx.sent, ctx.received) / ctx.tables.shard.world
        shape = ctx.tables.weight.shape
        if ctx.tables.sparse:
            return torch.sparse_coo_tensor(ctx.asked[None], grad, shape, check_invariants=False), None, None
        return grad.new_zeros(shape).index_add_(0, ctx.asked, grad), None, None


def _trade(x: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """Give each rank its part of x (in order of rank), take what each has for this one."""
    out = x.new_empty(sum(received), *x.shape[1:])
    dist.all_to_all_single(out, x.contiguous(), received, sent)
    return out


def own_weights(model: nn.Module) -> set[str]:
    """Names of the parameters of which each rank holds other rows: whoever saves a model asks every rank for them."""
    return {
        f"{name}.weight".removeprefix(".")
        for name, module in model.named_modules()
        if isinstance(module, HashedTables) and module.shard.world > 1
    }


def exchanged(model: nn.Module) -> set[str]:
    """Names of the parameters that DDP leaves alone: tables that exchange rows, sharded or by `SharedSparseAdam`."""
    sparse = {
        f"{name}.weight".removeprefix(".")
        for name, module in model.named_modules()
        if isinstance(module, HashedTables) and module.sparse
    }
    return own_weights(model) | sparse


class SharedSparseAdam(torch.optim.SparseAdam):
    """SparseAdam for tables that every rank holds whole: it steps by the mean of the ranks' gradients.

    Only rows that some rank looked up travel and change. All ranks must step as often, and begin alike.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups if dist.is_initialized() else ():
            for p in group["params"]:
                p.grad = _mean_over_ranks(p)
        return super().step(closure)


def _mean_over_ranks(p: Tensor) -> Tensor:
    """The sparse gradients of p of all ranks, added in their order on each, by their number."""
    rows, values = torch.zeros(0, dtype=torch.int64, device=p.device), p.new_zeros(0, p.shape[1])
    if p.grad is not None:
        own = p.grad.coalesce()
        rows, values = own.indices()[0], own.values()
    counts = [int(n) for n in torch.cat(_from_all(rows.new_tensor([len(rows)]), [1] * dist.get_world_size()))]
    index, total = torch.cat(_from_all(rows, counts))[None], torch.cat(_from_all(values, counts))
    return torch.sparse_coo_tensor(index, total / dist.get_world_size(), p.shape, check_invariants=False)


def _from_all(x: Tensor, counts: list[int]) -> list[Tensor]:
    """Every rank's x [counts[rank], ...]."""
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return [part[:n] for part, n in zip(parts, counts, strict=True)]


class RowWiseAdagrad(torch.optim.Optimizer):
    """Adagrad with one accumulator per row: w_r ← w_r − η g_r / (√(Σ mean(g_r²)) + ε).

    Takes sparse gradients and touches only their rows; of dense ones a row of zeros changes nothing, so that both
    lead to the same weights.
    """

    def __init__(self, params: Any, lr: float, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; `closure` is not used."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step(p, group["lr"], group["eps"])
        return None

    def _step(self, p: Tensor, lr: float, eps: float) -> None:
        if not self.state[p]:
            self.state[p]["sum_R"] = p.new_zeros(len(p))
        sum_R, grad = self.state[p]["sum_R"], p.grad
        assert grad is not None
        if grad.is_sparse:
            grad = grad.coalesce()
            row, g = grad.indices()[0], grad.values()
        else:
            row, g = torch.arange(len(p), device=p.device), grad
        sum_R.index_add_(0, row, g.square().mean(1))
        p.index_add_(0, row, g / (sum_R[row].sqrt() + eps)[:, None], alpha=-lr)
