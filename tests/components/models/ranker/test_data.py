"""Rows to tensors: the vectorised collate equals a plain loop."""

from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from components.history.build import NEVER_DAYS, Example
from components.history.items import ItemTable
from components.history.schema import FeatureSchema
from components.models.ranker.data import COLUMNS, collate, collate_example, summarize
from components.models.source import row_groups
from components.recipe import Rank, make_recipe

DAY = 86_400_000_000


@pytest.fixture
def items(planted):
    return ItemTable.load({f.rsplit("/", 1)[1]: f for f in planted.files("items")})


@pytest.fixture
def schema(planted):
    return FeatureSchema.load(planted.files("schema")[0])


@pytest.fixture
def rows(planted):
    return pq.read_table(planted.files("examples/train")[0], columns=list(COLUMNS)).slice(100, 9)


def test_collate_equals_a_loop_over_requests(rows, items, schema):
    batch = collate(rows, items, schema)
    b = 0
    for u, row in enumerate(rows.to_pylist()):
        length = len(row["history_item"])
        assert batch.sequence.action_UL[u, :length].tolist() == row["history_action"]
        assert batch.sequence.timestamp_UL[u, :length].tolist() == row["history_timestamp"]
        assert not batch.sequence.action_UL[u, length:].any()
        expected = torch.from_numpy(items.vectors[row["history_item"]].astype(np.float32))
        torch.testing.assert_close(batch.sequence.vector_ULD[u, :length], expected)
        assert not batch.sequence.vector_ULD[u, length:].any()
        assert batch.sequence.item_key_UL[u, :length].tolist() == items.keys[row["history_item"]].tolist()
        assert (batch.sequence.item_key_UL[u, length:] == -1).all()
        assert batch.sequence.request_time_U[u] == int(row["timestamp"].timestamp() * 1e6)
        assert batch.user_hash_U[u] == row["user_hash"]
        for n, item in enumerate(row["candidate_item"]):
            assert batch.row_of_B[b] == u
            assert batch.candidate_hash_B[b] == items.hash[item]
            assert batch.candidate_key_B[b] == items.keys[item]
            assert batch.candidate_categorical_BC[b, 0] == items.categorical[item, 0]
            assert batch.labels_BH[b].tolist() == [row["labels"][n] & 1, row["labels"][n] >> 1 & 1]
            numeric = torch.tensor(row["candidate_numeric"][2 * n : 2 * n + 2])
            torch.testing.assert_close(batch.candidate_numeric_BF[b], numeric)
            b += 1
    assert b == len(batch)


def test_the_newest_actions_are_kept_when_the_sequence_is_shorter(rows, items, schema):
    long, short = collate(rows, items, schema), collate(rows, items, schema, sequence_length=4)
    torch.testing.assert_close(short.sequence.action_UL, long.sequence.action_UL[:, :4])


def test_a_candidate_is_as_old_as_the_days_since_its_first_moment(rows, items, schema):
    at = collate(rows, items, schema).sequence.request_time_U
    born = pl.Series([None, *[int(at.min())] * (len(items) - 1)], dtype=pl.Int64).cast(pl.Datetime("us"))
    dated = replace(items, labels=items.labels.with_columns(created_at=born.dt.replace_time_zone("UTC")))
    batch = collate(rows, dated, schema)
    days = (at - at.min())[batch.row_of_B] / DAY
    torch.testing.assert_close(batch.candidate_age_B, days.float())
    assert (collate(rows, items, schema).candidate_age_B == NEVER_DAYS).all()
    later = replace(items, labels=items.labels.with_columns(created_at=pl.lit(2**52).cast(pl.Datetime("us", "UTC"))))
    assert (collate(rows, later, schema).candidate_age_B == 0).all()


def test_requests_without_history_are_padding(rows, items, schema):
    frame = pl.from_arrow(rows).with_columns(pl.col("^history_.*$").list.head(0), user_hash=pl.lit(0, pl.Int32))
    batch = collate(frame.to_arrow(), items, schema)
    assert batch.sequence.action_UL.shape == (9, 1)
    assert not batch.sequence.action_UL.any()


def test_downsampling_keeps_all_actions_and_says_what_it_dropped(rows, items, schema):
    everything = collate(rows, items, schema)
    kept = collate(rows, items, schema, negatives=3, rng=np.random.default_rng(0))
    for u in range(9):
        mine = kept.row_of_B == u
        idle = (kept.labels_BH[mine] == 0).all(1)
        whole = (everything.labels_BH[everything.row_of_B == u] == 0).all(1)
        assert int(idle.sum()) == 3
        assert int((~idle).sum()) == int((~whole).sum())
        assert kept.negative_rate_U[u] == pytest.approx(3 / len(whole))
        assert kept.sampling_B[mine][idle].tolist() == pytest.approx([3 / int(whole.sum())] * 3)
    assert bool((kept.row_of_B.diff() >= 0).all())


def test_downsampling_draws_every_row_without_action_equally(rows, items, schema):
    one = rows.slice(0, 1)
    numeric = collate(one, items, schema).candidate_numeric_BF[:, 0]
    idle = (collate(one, items, schema).labels_BH == 0).all(1)
    rng = np.random.default_rng(0)
    drawn = torch.zeros(len(numeric))
    for _ in range(600):
        seen = collate(one, items, schema, negatives=3, rng=rng).candidate_numeric_BF[:, 0]
        drawn += torch.isin(numeric, seen)
    share = drawn[idle] / 600
    assert float((share - 3 / int(idle.sum())).abs().max()) < 0.09
    assert bool((drawn[~idle] == 600).all())


def test_rate_of_kept_negatives_includes_what_the_log_dropped(rows, items, schema):
    frame = pl.from_arrow(rows).with_columns(
        candidate_sampling=pl.col("labels").list.eval(
            pl.when(pl.element() == 0).then(0.1).otherwise(1.0).cast(pl.Float32)
        )
    )
    batch = collate(frame.to_arrow(), items, schema)
    torch.testing.assert_close(batch.negative_rate_U, torch.full((9,), 0.1))


def test_surfaces_of_whole_requests_are_hidden_at_the_wanted_rate(planted, items, schema):
    rows = with_surfaces(pq.read_table(planted.files("examples/train")[0], columns=list(COLUMNS)))
    hidden = [collate(rows, items, schema, rng=np.random.default_rng(seed), surface_dropout=0.1) for seed in (0, 0, 1)]
    plain, lost = collate(rows, items, schema), hidden[0].candidate_surface_B == 0
    by_request = torch.bincount(hidden[0].row_of_B, lost.double()) / torch.bincount(hidden[0].row_of_B)
    assert set(by_request.tolist()) == {0.0, 1.0}
    assert float(by_request.mean()) == pytest.approx(0.1, abs=0.03)
    torch.testing.assert_close(hidden[0].candidate_surface_B[~lost], plain.candidate_surface_B[~lost])
    torch.testing.assert_close(hidden[0].sequence.surface_UL, plain.sequence.surface_UL)
    assert torch.equal(hidden[0].candidate_surface_B, hidden[1].candidate_surface_B)
    assert not torch.equal(hidden[0].candidate_surface_B, hidden[2].candidate_surface_B)


def test_surfaces_are_hidden_in_training_alone(planted, tmp_path):
    tables = dict(planted.tables)
    for split in ("train", "validation"):
        path = tmp_path / f"{split}.parquet"
        pq.write_table(with_surfaces(pq.read_table(planted.files(f"examples/{split}")[0])), path, row_group_size=128)
        tables[f"examples/{split}"] = [str(path)]
    recipe = make_recipe("transact", replace(planted, tables=tables), "debug")
    training = [batch.candidate_surface_B for batch in recipe.train_batches(Rank())]
    assert 0.05 < float((torch.cat(training) == 0).float().mean()) < 0.15
    assert all(bool((batch.candidate_surface_B == 7).all()) for batch in recipe.validation_batches(Rank()))


def with_surfaces(rows):
    """Every candidate shown on surface 7."""
    return pl.from_arrow(rows).with_columns(candidate_surface=pl.col("candidate_item") * 0 + 7).to_arrow()


def test_the_summary_counts_what_collate_keeps(planted, items, schema):
    files = planted.files("examples/train")
    everything = collate(pq.read_table(files[0]), items, schema)
    batch = collate(pq.read_table(files[0]), items, schema, negatives=3, rng=np.random.default_rng(0))
    summary = summarize(row_groups(files), 2, negatives=3)
    idle = [float((b.labels_BH == 0).all(1).sum()) for b in (batch, everything)]
    assert summary.per_request == pytest.approx(len(batch) / batch.requests)
    assert summary.kept == pytest.approx(idle[0] / idle[1])
    rates = torch.sigmoid(torch.tensor(summary.log_odds))
    torch.testing.assert_close(rates, everything.labels_BH.mean(0), rtol=1e-3, atol=1e-3)


def test_user_weights_are_joined_by_user(rows, items, schema):
    users = rows["user_id"].to_pylist()
    weights = pl.DataFrame({"user_id": [users[2]], "weight": [3.0]})
    batch = collate(rows, items, schema, weights=weights)
    assert batch.user_weight_U.tolist() == [3.0 if u == users[2] else 1.0 for u in users]


def test_an_online_request_equals_the_stored_row(rows, items, schema):
    row = rows.slice(3, 1).to_pylist()[0]
    types = {"history_action": np.int16, "history_timestamp": np.int64}
    names = [c for c in COLUMNS if c.startswith(("history_", "candidate_")) and c != "candidate_sampling"]
    arrays = {c: np.array(row[c], types.get(c, np.float32 if c.endswith("numeric") else np.int32)) for c in names}
    example = Example(**arrays, user_hash=row["user_hash"], user_numeric=np.array(row["user_numeric"], np.float32))
    online = collate_example(example, int(row["timestamp"].timestamp() * 1e6), items, schema)
    stored = collate(rows.slice(3, 1), items, schema)
    for name in ("candidate_vector_BD", "candidate_numeric_BF", "user_hash_U", "user_numeric_UG", "row_of_B"):
        torch.testing.assert_close(getattr(online, name), getattr(stored, name))
    for name in ("vector_ULD", "action_UL", "timestamp_UL", "surface_UL", "request_time_U"):
        torch.testing.assert_close(getattr(online.sequence, name), getattr(stored.sequence, name))


def test_batches_move_as_a_whole(rows, items, schema):
    moved = collate(rows, items, schema).to(torch.device("meta"))
    assert moved.sequence.vector_ULD.device.type == "meta"
    assert moved.labels_BH.device.type == "meta"
