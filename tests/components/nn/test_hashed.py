"""Hashed tables: rows that never change, and shards that are the whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel

from components.history.keys import key, keys, mix
from components.nn.hashed import (
    INIT_BLOCK,
    HashedTables,
    RowWiseAdagrad,
    Shard,
    SharedSparseAdam,
    exchanged,
    own_weights,
    without_rows,
)
from tests.ranks import run_ranks

J, R, W = 8, 1_000, 4


def tables(**options) -> HashedTables:
    return HashedTables(J, R, W, **options)


def test_rows_of_an_id_are_these_for_ever():
    row = HashedTables(4, 1_000_003, 1).rows_of(torch.tensor([key("item-42")]))[0]
    assert key("item-42") == 1_875_857_111_362_739_095
    assert (row - torch.arange(4) * 1_000_003).tolist() == [654_530, 326_470, 396_183, 124_949]


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=50), st.integers(1, 2**40))
@settings(max_examples=200, deadline=None)
def test_rows_are_those_of_the_plain_hash(values, rows):
    table = HashedTables(3, 1, 1)
    table.rows, table.begin_J = rows, torch.arange(3) * rows
    expected = np.stack([(mix(np.array(values), j) >> np.uint64(1)) % np.uint64(rows) for j in range(3)], axis=1)
    found = table.rows_of(torch.tensor(values)) - table.begin_J
    np.testing.assert_array_equal(found.numpy().astype(np.uint64), expected)


def test_ids_reach_every_row_and_no_two_share_all_of_theirs():
    table = HashedTables(8, 500, 1)
    row = table.rows_of(torch.from_numpy(keys([f"item {n}" for n in range(5_000)])))
    for j in range(8):
        assert len((row[:, j] - 500 * j).unique()) == 500
    assert int(row.min()) == 0
    assert int(row.max()) == 8 * 500 - 1
    assert len(row.unique(dim=0)) == 5_000


def test_a_vector_is_its_rows_side_by_side_and_nothing_is_zero():
    table = tables()
    ids = torch.tensor([[key("a"), -1], [key("b"), key("a")]])
    found = table(ids)
    assert found.shape == (2, 2, J * W)
    for place in ((0, 0), (1, 0), (1, 1)):
        torch.testing.assert_close(found[place], table.weight[table.rows_of(ids[place])].flatten())
    assert bool((found[0, 1] == 0).all())


@pytest.mark.parametrize("optimizer", [RowWiseAdagrad, torch.optim.SGD])
def test_sparse_gradients_lead_to_the_weights_of_dense_ones(optimizer):
    both = [tables(sparse=sparse) for sparse in (False, True)]
    for table in both:
        steps = optimizer(table.parameters(), lr=0.1)
        for n in range(3):
            steps.zero_grad()
            ids = torch.arange(n, n + 7).repeat(2) - 1
            (table(ids) * torch.linspace(-1, 1, J * W)).square().sum().backward()
            assert table.weight.grad.is_sparse == table.sparse
            steps.step()
    torch.testing.assert_close(both[0].weight, both[1].weight)
    assert not torch.equal(both[0].weight, tables().weight)


def test_row_wise_adagrad_is_adagrad_of_each_rows_mean_square():
    torch.manual_seed(0)
    start, grads = torch.randn(5, 3), torch.randn(4, 5, 3)
    weight = torch.nn.Parameter(start.clone())
    steps = RowWiseAdagrad([weight], lr=0.3)
    expected, total = start.clone(), torch.zeros(5)
    for g in grads:
        weight.grad = g.clone()
        steps.step()
        for r in range(5):
            total[r] += g[r].square().mean()
            expected[r] -= 0.3 * g[r] / (total[r].sqrt() + 1e-8)
    torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("world", [2, 3])
def test_shards_begin_as_parts_of_the_whole(world):
    rows = INIT_BLOCK // 4
    whole = HashedTables(9, rows, 2, seed=7).weight
    parts = torch.cat([HashedTables(9, rows, 2, seed=7, shard=Shard(r, world)).weight for r in range(world)])
    torch.testing.assert_close(parts[: len(whole)], whole, rtol=0, atol=0)
    assert not torch.equal(whole, HashedTables(9, rows, 2, seed=8).weight)


STEPS, KINDS = 3, ("adagrad", "adam", "dense")


class Scored(torch.nn.Module):
    """A table and something dense behind it."""

    def __init__(self, table: HashedTables) -> None:
        super().__init__()
        self.table = table
        self.head = torch.nn.Linear(J * W, 2)

    def forward(self, ids):
        return self.head(self.table(ids)).square().mean()


def batch(step: int, rank: int) -> torch.Tensor:
    """Ids that ranks share, ids of one rank, repeats, none; a rank without any in the last step."""
    rng = np.random.default_rng((step, rank))
    ids = torch.from_numpy(rng.integers(-1, 60, size=(4, 5 + 3 * rank))) * 1_000_003
    return ids[:, :0].new_full((1, 1), -1) if (step, rank) == (STEPS - 1, 1) else ids


def optimizers(model: Scored, kind: str):
    table = {
        "adagrad": lambda p: RowWiseAdagrad(p, lr=0.1),
        "adam": lambda p: torch.optim.SparseAdam(list(p), lr=0.1),
        "dense": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    }[kind](model.table.parameters())
    return table, torch.optim.SGD(model.head.parameters(), lr=0.1)


def new_model(kind: str, shard: Shard | None) -> Scored:
    torch.manual_seed(0)
    return Scored(HashedTables(J, 7, W, sparse=kind != "dense", shard=shard))


def train_shards(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.save({kind: train_shard(rank, kind) for kind in KINDS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def train_shard(rank: int, kind: str):
    model = new_model(kind, Shard.here())
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, own_weights(model))
    parallel, said = DistributedDataParallel(model), []
    steps = optimizers(model, kind)
    for step in range(STEPS):
        for optimizer in steps:
            optimizer.zero_grad()
        loss = parallel(batch(step, rank))
        loss.backward()
        grad = model.table.weight.grad
        said.append((loss.detach(), grad.to_dense() if grad.is_sparse else grad.clone()))
        for optimizer in steps:
            optimizer.step()
    return said, model.state_dict()


def train_whole(world: int, kind: str):
    """The twin: one table, the mean of the ranks' losses."""
    model, said = new_model(kind, None), []
    steps = optimizers(model, kind)
    for step in range(STEPS):
        for optimizer in steps:
            optimizer.zero_grad()
        losses = [model(batch(step, rank)) for rank in range(world)]
        (sum(losses) / world).backward()
        grad = model.table.weight.grad
        said.append(([loss.detach() for loss in losses], grad.to_dense() if grad.is_sparse else grad.clone()))
        for optimizer in steps:
            optimizer.step()
    return said, model.state_dict()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes says of each kind of training."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    run_ranks(train_shards, 2, str(folder))
    return [torch.load(folder / f"{r}.pt") for r in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_train_the_table_of_one(kind, ranks):
    """Outputs, gradients and weights after steps."""
    twin, weights = train_whole(2, kind)
    parts = [rank[kind] for rank in ranks]
    for step, (losses, grad) in enumerate(twin):
        for rank, (said, _) in enumerate(parts):
            torch.testing.assert_close(said[step][0], losses[rank])
        torch.testing.assert_close(torch.cat([said[step][1] for said, _ in parts]), grad)
    assert [len(own["table.weight"]) for _, own in parts] == [28, 28]
    torch.testing.assert_close(torch.cat([own["table.weight"] for _, own in parts]), weights["table.weight"])
    torch.testing.assert_close(parts[1][1]["head.weight"], weights["head.weight"])


def train_replicas(rank: int, folder: str) -> None:
    """A table that each rank holds whole, of which rows are exchanged; the rest under DDP."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = new_model("adam", None)
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, exchanged(model))
    parallel = DistributedDataParallel(model)
    steps = SharedSparseAdam(model.table.parameters(), lr=0.1), torch.optim.SGD(model.head.parameters(), lr=0.1)
    for step in range(STEPS):
        model.zero_grad()
        parallel(batch(step, rank)).backward()
        for optimizer in steps:
            optimizer.step()
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_that_hold_a_table_whole_step_by_the_mean_of_their_gradients(tmp_path):
    run_ranks(train_replicas, str(tmp_path))
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    _, expected = train_whole(2, "adam")
    for name, weight in expected.items():
        assert torch.equal(one[name], two[name])
        torch.testing.assert_close(one[name], weight)


def test_only_shards_are_a_ranks_own():
    assert own_weights(Scored(tables(shard=Shard(1, 2)))) == {"table.weight"}
    assert own_weights(Scored(tables())) == set()
    assert exchanged(Scored(tables())) == set()
    assert exchanged(Scored(tables(sparse=True))) == {"table.weight"}


def test_a_table_that_a_file_will_fill_takes_no_memory_until_then():
    """A thousand billion values."""
    with without_rows():
        table = HashedTables(8, 2**31, 64)
        small = HashedTables(2, 50, 4, seed=3)
    assert table.weight.is_meta
    small.draw(3)
    assert torch.equal(small.weight, HashedTables(2, 50, 4, seed=3).weight)
