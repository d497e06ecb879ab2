"""Embeddings by hash, the cross network, dropout from bytes, positions."""

import pytest
import torch

from components.history.schema import id_hash
from components.nn.cross import CrossNetwork
from components.nn.dropout import ByteDropout
from components.nn.embedding import HashedColumns, HashedEmbedding, hash_rows
from components.nn.position import PositionEncoding, sinusoid


def test_hash_zero_is_row_zero_and_others_wrap_around():
    table = HashedEmbedding(rows=4, dim=3)
    vectors = table(torch.tensor([0, 1, 9, 2**31 - 1]))
    torch.testing.assert_close(vectors[0], table.table.weight[0])
    torch.testing.assert_close(vectors[1], vectors[2])
    torch.testing.assert_close(vectors[3], table.table.weight[1 + (2**30 - 1) % 4])


@pytest.mark.parametrize("rows", [20_000, 5_000, 64])
def test_ids_reach_every_row_of_a_table_of_even_size(rows):
    """Hashes are odd: as they were, they reached half of it."""
    row = hash_rows(torch.tensor([id_hash(f"item {n}") for n in range(100_000)]), rows)
    assert len(row.unique()) > 0.95 * rows
    assert 0 <= int(row.min()) <= int(row.max()) < rows


@pytest.mark.parametrize("absent", ["learned", "zero"])
def test_an_absent_value_is_learned_or_stays_zero(absent):
    table = HashedEmbedding(rows=4, dim=3, absent=absent)
    optimizer = torch.optim.SGD(table.parameters(), lr=1.0)
    table(torch.tensor([0])).sum().backward()
    before = table.table.weight[0].clone()
    optimizer.step()
    moved = not torch.equal(before, table.table.weight[0])
    assert moved == (absent == "learned")
    assert absent == "learned" or bool((table.table.weight[0] == 0).all())


@pytest.mark.parametrize("absent", ["learned", "zero"])
@pytest.mark.parametrize("columns", [0, 1, 3])
def test_columns_in_one_table_are_a_table_for_each(columns, absent):
    """The same vectors, and the same step of training, absent values included."""
    one = HashedColumns(columns, rows=5, dim=2, absent=absent)
    each = [HashedEmbedding(rows=5, dim=2, absent=absent) for _ in range(columns)]
    with torch.no_grad():
        for c, table in enumerate(each):
            table.table.weight.copy_(one.table.weight[c * 6 : c * 6 + 6])
            if absent == "zero":
                table.table.weight[0] = 0
    hashes = torch.randint(0, 9, (40, columns))
    for _ in range(2):
        expected = torch.cat([torch.zeros(40, 0), *(t(hashes[:, c]) for c, t in enumerate(each))], dim=1)
        torch.testing.assert_close(one(hashes), expected)
        for model, y in ((one, one(hashes)), (torch.nn.ModuleList(each), expected)):
            if columns:
                (y * torch.arange(2 * columns)).sum().backward()
                torch.optim.SGD(model.parameters(), lr=0.1).step()


def test_cross_layers_multiply_the_input_elementwise():
    cross = CrossNetwork(dim=3, layers=2)
    x = torch.randn(5, 3)
    first = x * (x @ cross.layers[0].weight.T + cross.layers[0].bias) + x
    second = x * (first @ cross.layers[1].weight.T + cross.layers[1].bias) + first
    torch.testing.assert_close(cross(x), second)


def test_byte_dropout_drops_its_share_at_every_place_and_keeps_the_mean():
    torch.manual_seed(0)
    dropout = ByteDropout(0.25)
    out = dropout(torch.ones(8, 50_000))
    assert dropout.threshold == 64
    share = (out.view(-1, 8) == 0).float().mean(0)  # by byte of the random word
    assert share.min() > 0.24
    assert share.max() < 0.26
    assert abs(float(out.mean()) - 1) < 0.01


def test_byte_dropout_passes_gradients_of_what_it_keeps():
    torch.manual_seed(0)
    x = torch.randn(100, requires_grad=True)
    out = ByteDropout(0.5)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, (out != 0) * 2.0)


def test_byte_dropout_does_nothing_in_evaluation():
    x = torch.randn(10)
    assert ByteDropout(0.9).eval()(x) is x


@pytest.mark.parametrize("kind", ["learned", "sinusoidal", "linear"])
def test_positions_differ_and_are_added(kind):
    torch.manual_seed(0)
    encoding = PositionEncoding(kind, length=6, dim=7)
    added = encoding(torch.zeros(2, 4, 7))
    assert added.shape == (2, 4, 7)
    assert torch.equal(added[0], added[1])
    assert len(torch.unique(added[0], dim=0)) == 4


def test_sinusoids_are_sines_and_cosines_of_the_position():
    table = sinusoid(50, 8)
    torch.testing.assert_close(table[:, 0], torch.sin(torch.arange(50.0)))
    torch.testing.assert_close(table[:, 1], torch.cos(torch.arange(50.0)))
    torch.testing.assert_close(table[:, 0::2] ** 2 + table[:, 1::2] ** 2, torch.ones(50, 4))
