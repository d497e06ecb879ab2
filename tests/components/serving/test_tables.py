"""Quantised rows: as far from the float ones as the paper says, gathered as plain numpy would, shared as files."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UserError
from components.nn.hashed import HashedTables
from components.serving.tables import QuantisedTable, quantise


def gaussian(rows, width=32, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def plain(row, bits):
    """One float row, rounded: the twin."""
    low = np.float16(row.min())
    scale = np.float16((row.max() - row.min()) / (2**bits - 1))
    if scale == 0:
        return np.full_like(row, np.float32(low))
    codes = np.clip(np.round((row - np.float32(low)) / np.float32(scale)), 0, 2**bits - 1)
    return (codes * np.float32(scale) + np.float32(low)).astype(np.float32)


@pytest.mark.parametrize(("bits", "size"), [(4, 160), (8, 288), (32, 1024)])
def test_thirty_two_values_take_as_many_bits_as_the_paper_says(bits, size):
    packed = quantise(gaussian(3), bits)
    assert packed.shape[1] * 8 == size
    assert QuantisedTable(packed, bits).width == 32


@pytest.mark.parametrize(("bits", "error"), [(4, 0.078), (8, 0.0046)])
def test_relative_errors_on_gaussian_rows_are_the_papers(bits, error):
    rows = gaussian(20_000)
    found = QuantisedTable(quantise(rows, bits), bits).gather(torch.arange(len(rows))).numpy()
    measured = np.linalg.norm(found - rows) / np.linalg.norm(rows)
    assert measured == pytest.approx(error, rel=0.03)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 20),
    width=st.sampled_from([2, 6, 32, 48]),
    exponent=st.integers(-6, 4),
    offset=st.floats(-3, 3, width=32),
    bits=st.sampled_from([4, 8, 32]),
    data=st.data(),
)
def test_gathering_equals_rounding_each_row_in_numpy(rows, width, exponent, offset, bits, data):
    table = (gaussian(rows, width) + offset) * np.float32(2.0**exponent)
    table[data.draw(st.integers(0, rows - 1))] = offset  # a row without a range
    wanted = data.draw(st.lists(st.integers(-1, rows - 1), max_size=30))
    found = QuantisedTable(quantise(table, bits), bits).gather(torch.tensor(wanted, dtype=torch.int64))
    assert found.shape == (len(wanted), width)
    for row, vector in zip(wanted, found.numpy(), strict=True):
        twin = np.zeros(width) if row < 0 else table[row] if bits == 32 else plain(table[row], bits)
        np.testing.assert_allclose(vector, twin, rtol=1e-6, atol=1e-6 * 2.0**exponent)


def test_every_fp16_is_read_as_numpy_reads_it():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    packed = np.zeros((len(halves), 6), np.uint8)
    packed[:, 4:] = halves.view(np.uint8).reshape(-1, 2)
    found = QuantisedTable(packed, 8).gather(torch.arange(len(halves)))
    assert np.array_equal(found[:, 0].numpy(), halves.astype(np.float32))


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_a_file_written_in_blocks_is_the_table(tmp_path, bits):
    rows, wanted = gaussian(1000), torch.randint(0, 1000, (5, 8))
    QuantisedTable.write(tmp_path, np.array_split(rows, 7), rows=1000, bits=bits)
    mapped = QuantisedTable.open(tmp_path)
    assert isinstance(mapped.packed, np.memmap)
    assert not mapped.packed.flags.writeable
    assert torch.equal(mapped.gather(wanted), QuantisedTable(quantise(rows, bits), bits).gather(wanted))


def test_pinfms_sub_tables_are_gathered_side_by_side():
    torch.manual_seed(0)
    table = HashedTables(8, 100, 32)
    keys = torch.randint(0, 2**60, (4, 5))
    expected = table(keys)
    weight = table.weight.detach().numpy()
    for bits, error in ((4, 0.1), (8, 0.006), (32, 1e-7)):
        found = QuantisedTable(quantise(weight, bits), bits).gather(table.rows_of(keys)).flatten(-2)
        assert found.shape == expected.shape
        assert (found - expected).norm() <= error * expected.norm()


def test_many_threads_gather_what_one_does():
    rows = gaussian(5000)
    table, wanted = QuantisedTable(quantise(rows, 4), 4), torch.randint(0, 5000, (40_000,))
    expected = torch.cat([table.gather(part) for part in wanted.split(1000)])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: table.gather(wanted), range(8)):
            assert torch.equal(found, expected)


def test_what_cannot_be_stored_or_found_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pairs"):
        quantise(gaussian(2, 3), 4)
    with pytest.raises(ValueError, match="fp16"):
        quantise(gaussian(2) * 1e6, 8)
    with pytest.raises(ValueError, match="announced"):
        QuantisedTable.write(tmp_path / "a", [gaussian(3)], rows=4, bits=8)
    with pytest.raises(ValueError, match="announced"):
        QuantisedTable.write(tmp_path / "b", [gaussian(3), gaussian(3)], rows=4, bits=8)
    with pytest.raises(IndexError):
        QuantisedTable(quantise(gaussian(3), 8), 8).gather(torch.tensor([3]))
    with pytest.raises(UserError, match="no embedding table"):
        QuantisedTable.open(tmp_path)
    QuantisedTable.write(tmp_path, [gaussian(3)], rows=3, bits=8)
    (tmp_path / "table.json").write_text(json.dumps({"format": 99, "bits": 8}))
    with pytest.raises(UserError, match="format 99"):
        QuantisedTable.open(tmp_path)
