"""Streaming rows: shards, shuffles and exact resumption."""

from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from components.errors import UserError
from components.models.source import ParquetSource, in_order
from components.recipe import Rank

ROWS = 1000


@pytest.fixture
def files(tmp_path):
    """Three files of uneven size in uneven row groups."""
    edges = [0, 130, 700, ROWS]
    for n, (start, stop) in enumerate(pairwise(edges)):
        frame = pl.DataFrame({"n": np.arange(start, stop)})
        frame.write_parquet(tmp_path / f"{n}.parquet", row_group_size=70 + 30 * n)
    return [str(p) for p in tmp_path.iterdir()]


def rows_of(table: pa.Table, rng: np.random.Generator) -> tuple[list[int], int]:
    return table["n"].to_pylist(), int(rng.integers(1 << 40))


def source(files, rank=0, world=1, batch=16, seed=0, shuffle=200):
    return ParquetSource(files, ["n"], rows_of, batch=batch, rank=Rank(rank, world), seed=seed, shuffle=shuffle)


def test_an_epoch_has_every_row_once_in_another_order(files):
    one = source(files, batch=10)
    seen = [n for rows, _ in one for n in rows]
    assert sorted(seen) == list(range(ROWS))
    assert seen != list(range(ROWS))
    one.set_epoch(1)
    assert [n for rows, _ in one for n in rows] != seen


@pytest.mark.parametrize("world", [2, 3, 7])
def test_ranks_have_equally_many_batches_of_different_rows(files, world):
    ranks = [source(files, r, world) for r in range(world)]
    parts = [[n for rows, _ in s for n in rows] for s in ranks]
    assert {s.batches_per_epoch for s in ranks} == {ROWS // world // 16}
    assert {len(p) for p in parts} == {ROWS // world // 16 * 16}
    assert len({n for p in parts for n in p}) == sum(map(len, parts))


@pytest.mark.parametrize("after", [0, 1, 13, 29])
def test_a_resumed_source_gives_the_very_batches_that_were_left(files, after):
    whole = source(files, 1, 2)
    whole.set_epoch(3)
    stream = iter(whole)
    for _ in range(after):
        next(stream)
    state = whole.state_dict()
    rest = list(stream)

    resumed = source(files, 1, 2)
    resumed.load_state_dict(state)
    assert list(resumed) == rest
    assert len(rest) == whole.batches_per_epoch - after


def test_the_order_depends_on_the_seed_alone(files):
    assert list(source(files, seed=1)) == list(source(list(reversed(files)), seed=1))
    assert list(source(files, seed=1)) != list(source(files, seed=2))


def test_another_number_of_workers_goes_on_at_the_same_part_of_the_epoch(files):
    two = source(files, 0, 2)
    stream = iter(two)
    for _ in range(16):
        next(stream)
    four = source(files, 0, 4)
    four.load_state_dict(two.state_dict())
    assert four.offset == round(16 * four.batches_per_epoch / two.batches_per_epoch)


def test_fewer_rows_than_workers_need_is_the_users_to_mend(files):
    with pytest.raises(UserError, match="too few for 4 workers of 300 rows"):
        source(files, 0, 4, batch=300)


@pytest.mark.parametrize("world", [1, 3])
def test_in_order_covers_every_row_once_over_all_ranks(files, world):
    parts = [
        [n for table in in_order(files, ["n"], batch=9, rank=Rank(r, world)) for n in table["n"].to_pylist()]
        for r in range(world)
    ]
    assert [n for p in parts for n in p] == list(range(ROWS))
