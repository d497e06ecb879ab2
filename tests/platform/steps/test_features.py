"""The step over a small log: what it publishes, and that only the past is in it."""

from datetime import timedelta
from uuid import uuid4

import numpy as np
import polars as pl
import pytest

from components.contract import midnight, user_bucket
from components.errors import UserError
from components.history.items import ItemTable
from components.history.schema import EXAMPLE_COLUMNS, FeatureSchema, id_hash
from components.history.statistics import ITEM_NUMERIC
from pinloom.features import buckets
from pinloom.lake import FileEntry, Lake, Output
from tests.platform.features import small


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    lake, settings = small.local(tmp_path_factory.mktemp("features"))
    spec, log = small.spec(), small.actions()
    small.publish(lake, log, spec)
    return lake, settings, spec, log


@pytest.fixture(scope="module")
def features(world):
    lake, settings, spec, _ = world
    return small.run(lake, settings, spec, "features")


def test_every_request_of_the_splits_is_one_row_and_every_exposure_one_candidate(world, features):
    lake, _, spec, log = world
    shown = log.filter(pl.col("action") == "view")
    for split in ("train", "validation", "test"):
        start, stop = spec.contract.splits.interval(split)
        wanted = shown.filter(pl.col("timestamp").is_between(start, stop, closed="left"))
        rows = small.read(lake, features, "examples", split)
        assert set(rows.columns) == set(EXAMPLE_COLUMNS)
        assert sorted(rows["request_id"]) == sorted(wanted["request_id"].unique())
        assert rows["candidate_item"].list.len().sum() == wanted.height
        assert features.metrics[f"examples_{split}"] == rows.height


def test_with_rolling_splits_a_later_snapshot_learns_from_what_an_earlier_one_was_tested_on(tmp_path):
    lake, settings = small.local(tmp_path)
    spec = small.spec(splits={"burn_in": small.START, "validation": 2, "test": 1})
    small.publish(lake, small.actions(), spec)
    days = [small.LAST, small.LAST + timedelta(days=1)]
    first, second = (small.run(lake, settings, spec, "features", as_of=day) for day in days)
    for manifest, day in ((first, days[0]), (second, days[1])):
        for split, back, length in (("test", 1, 1), ("validation", 3, 2)):
            asked = small.read(lake, manifest, "examples", split)["timestamp"]
            start = midnight(day) - timedelta(days=back)
            assert len(asked)
            assert asked.is_between(start, start + timedelta(days=length), closed="left").all()
    learned = set(small.read(lake, second, "examples", "train")["request_id"])
    assert learned > set(small.read(lake, first, "examples", "train")["request_id"])
    assert learned & set(small.read(lake, first, "examples", "validation")["request_id"])


def test_labels_are_what_the_user_did_in_the_request(world, features):
    lake, _, _, log = world
    rows = small.read(lake, features, "examples").select("request_id", "candidate_item", "labels")
    ids = _items(lake, features).ids
    got = {
        (request, ids[item]): label
        for request, items, labels in rows.iter_rows()
        for item, label in zip(items, labels, strict=True)
        if label
    }
    did = log.filter(pl.col("action") != "view").select("request_id", "item_id", "action").iter_rows()
    assert got == {(request, item): {"like": 1, "hide": 2}[action] for request, item, action in did}


def test_the_item_table_has_the_unknown_item_then_ids_in_byte_order_as_of_the_snapshot(world, features):
    lake, _, _, log = world
    table = _items(lake, features)
    assert table.ids.to_list() == ["", *sorted(small.ITEM_IDS)]
    assert not table.vectors[0].any()
    assert table.numeric[0].tolist() == [0] * len(ITEM_NUMERIC)
    likes = dict(log.filter(pl.col("action") == "like").group_by("item_id").len().iter_rows())
    np.testing.assert_allclose(np.expm1(table.numeric[1:, 2]), [likes.get(i, 0) for i in table.ids[1:]], rtol=1e-5)
    assert table.hash.tolist() == [id_hash(i) if likes.get(i) else 0 for i in table.ids]


def test_full_requests_rank_every_item_that_has_a_row(world, features):
    lake, _, _, _ = world
    rows = small.read(lake, features, "full_requests", "test")
    assert rows.height == 3
    for items in rows["candidate_item"].to_list():
        assert sorted(items) == list(range(1, len(small.ITEM_IDS) + 1))


def test_users_have_statistics_features_and_weight_with_or_without_actions(world, features):
    lake, _, _, log = world
    users = small.read(lake, features, "user_stats").sort("user_id")
    assert sorted(users["user_id"]) == sorted(small.USERS)
    weights = dict(users.select("user_id", "weight").iter_rows())
    assert {weights[u] for u in small.USERS[::3]} == {2.0}
    assert {weights[u] for u in small.USERS[1::3]} == {1.0}
    silent = users.filter(pl.col("user_id") == small.USERS[-1])
    assert silent["actions"].item() == 0
    done = log.filter(pl.col("action") != "view").group_by("user_id").len()
    joined = users.join(done, on="user_id")
    assert (joined["actions"] == joined["len"]).all()


def test_the_log_ends_at_as_of(world):
    lake, settings, spec, log = world
    day = small.LAST - timedelta(days=2)
    earlier = small.run(lake, settings, spec, "features", as_of=day)
    assert earlier.metrics["examples_test"] == 0
    histories = small.read(lake, earlier, "histories")
    moments = pl.from_epoch(histories["timestamp"].explode(), "us").dt.replace_time_zone("UTC")
    assert moments.max() < histories["event_timestamp"][0]
    past = log.filter(pl.col("timestamp").dt.date() < day, pl.col("action") != "view")
    assert histories["event"].list.len().sum() == past.height


def test_a_sample_takes_training_requests_only(world, features):
    lake, settings, spec, _ = world
    half = small.run(lake, settings, spec, "features", sample=0.5)
    assert half.metrics["examples_train"] == pytest.approx(features.metrics["examples_train"] / 2, rel=0.15)
    assert half.metrics["examples_test"] == features.metrics["examples_test"]
    whole, part = (small.read(lake, m, "examples", "train") for m in (features, half))
    assert part.join(whole, on=part.columns[:3], how="semi").height == part.height


def test_train_start_drops_earlier_requests_but_not_their_actions(world, features):
    lake, settings, spec, _ = world
    start = small.START + timedelta(days=5)
    late = small.read(lake, small.run(lake, settings, spec, "features", train_start=start), "examples", "train")
    whole = small.read(lake, features, "examples", "train").filter(pl.col("timestamp").dt.date() >= start)
    assert late.sort("request_id").equals(whole.sort("request_id"))


def test_train_days_are_counted_back_from_the_validation_split(world):
    lake, settings, spec, _ = world
    days = (spec.contract.splits.validation - small.START).days - 5
    made = small.run(lake, settings, spec, "features", train_days=days)
    assert made.params["train_start"] == (small.START + timedelta(days=5)).isoformat()
    with pytest.raises(UserError, match="train_start and train_days are both given"):
        small.run(lake, settings, spec, "features", train_days=days, train_start=small.START)


def test_a_training_start_beyond_its_split_is_answered_with_the_day(world):
    lake, settings, spec, _ = world
    with pytest.raises(UserError, match="train_start 2026-03-12 is not before the validation split"):
        small.run(lake, settings, spec, "features", train_start=small.LAST)


def test_a_declared_feature_that_items_lack_is_named_with_those_there_are(world):
    lake, settings, spec, _ = world
    wrong = spec.model_copy(update={"features": spec.features.model_copy(update={"text": ("titel",)})})
    with pytest.raises(UserError, match=r"names 'titel'.*\n.*colour, size, category, title"):
        small.run(lake, settings, wrong, "features")


def test_the_same_log_gives_the_same_bytes_on_any_store_and_in_any_stored_order(world, features):
    _, settings, spec, log = world
    elsewhere = Lake(f"memory://{uuid4().hex}")
    small.publish(elsewhere, log.sample(fraction=1, shuffle=True, seed=1), spec)
    again = small.run(elsewhere, settings, spec, "features")
    for output in ("items", "examples", "full_requests", "user_stats", "schema"):
        one, two = (sorted((f.partition, f.sha256) for f in m.output(output).files) for m in (features, again))
        assert one == two, output


def test_it_does_not_matter_how_many_buckets_are_read_together(world, features, tmp_path, monkeypatch):
    lake, settings, spec, log = world
    assert buckets.groups_of(3, lake.require("actions").output("actions")) == (range(3),)
    elsewhere, _ = small.local(tmp_path)
    small.publish(elsewhere, log, spec)
    monkeypatch.setattr(buckets, "GROUP_ROWS", 1)
    again = small.run(elsewhere, settings, spec, "features")
    for output in features.outputs:
        assert {f.sha256 for f in again.output(output).files} == {f.sha256 for f in features.output(output).files}


@pytest.mark.parametrize(("rows", "groups"), [(0, 1), (1, 1), (2_000_000, 2), (10**9, 16), (None, 16)])
def test_groups_have_every_bucket_once_and_about_a_million_rows(rows, groups):
    table = Output(files=(FileEntry(uri="day", sha256="", bytes=1, rows=rows),))
    found = buckets.groups_of(16, table)
    assert [bucket for group in found for bucket in group] == list(range(16))
    assert len(found) == groups


def test_a_bucket_without_rows_still_has_its_users(world, tmp_path):
    _, settings, spec, log = world
    lake, _ = small.local(tmp_path)
    one = user_bucket(small.USERS[0], spec.contract.buckets)
    of_one = [u for u in small.USERS if user_bucket(u, spec.contract.buckets) == one]
    small.publish(lake, log.filter(pl.col("user_id").is_in(of_one)), spec)
    found = small.run(lake, settings, spec, "features")
    assert small.read(lake, found, "user_stats").height == len(small.USERS)
    assert small.read(lake, found, "histories")["user_id"].is_in(of_one).all()


@pytest.mark.cluster
def test_ray_tasks_write_what_one_process_writes(world, features, ray_cluster, tmp_path, monkeypatch):
    _, settings, spec, log = world
    lake, _ = small.local(tmp_path)
    small.publish(lake, log, spec)
    monkeypatch.setattr(buckets, "RAY_ROWS", 1)
    monkeypatch.setattr(buckets, "GROUP_ROWS", 1)
    again = small.run(lake, settings, spec, "features")
    for output in features.outputs:
        if output != "histories":
            assert {f.sha256 for f in again.output(output).files} == {f.sha256 for f in features.output(output).files}


def test_the_schema_names_every_number(world, features):
    lake, _, spec, _ = world
    schema = FeatureSchema.from_json(lake.read_bytes(features.file("schema", "schema.json")).decode())
    row = small.read(lake, features, "examples").row(0, named=True)
    assert len(row["candidate_numeric"]) == len(row["candidate_item"]) * len(schema.candidate_numeric)
    assert len(row["user_numeric"]) == len(schema.user_numeric)
    assert schema.candidate_numeric[: len(schema.item_numeric)] == schema.item_numeric
    assert schema.heads == spec.contract.heads
    assert schema.crosses == ("colour",)


def _items(lake, manifest) -> ItemTable:
    return ItemTable.load({uri.rsplit("/", 1)[-1]: lake.local_path(uri) for uri in manifest.output("items").uris})
