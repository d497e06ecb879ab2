from datetime import UTC, date, datetime

import polars as pl
import pytest

from components.contract import ACTIONS, TIMESTAMP, bucket_expr
from components.errors import UserError
from pinloom.datasets import load_dataset
from pinloom.datasets.source import conform, in_sample, infer_created_at, open_source

USERS = pl.Series([f"u{i}" for i in range(20_000)])


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_sample_has_its_share_of_users_in_every_bucket(share):
    chosen = in_sample(USERS, share)
    by_bucket = (
        pl.DataFrame({"bucket": bucket_expr(USERS, 8), "chosen": chosen})
        .group_by("bucket")
        .agg(pl.col("chosen").mean())
    )
    assert by_bucket["chosen"].min() == pytest.approx(share, abs=0.04)
    assert by_bucket["chosen"].max() == pytest.approx(share, abs=0.04)


def test_smaller_samples_are_part_of_larger_ones():
    small, large = in_sample(USERS, 0.1), in_sample(USERS, 0.3)
    assert not (small & ~large).any()
    assert in_sample(USERS, 1.0).all()


def test_a_sample_keeps_rows_without_a_user_for_the_gate():
    assert in_sample(pl.Series(["u1", None]), 1e-9).to_list() == [False, True]


def test_integer_and_text_ids_are_the_same_users():
    numbers = pl.Series(range(1000))
    assert in_sample(numbers, 0.4).equals(in_sample(numbers.cast(pl.String), 0.4))


def test_conform_gives_exactly_the_contract_and_keeps_features():
    frame = conform(pl.DataFrame({"item_id": [7], "features.size": [1.5], "noise": [0]}), "items")
    assert frame.columns == ["item_id", "created_at", "created_at_inferred", "category", "title", "features.size"]
    assert frame.row(0) == ("7", None, None, None, None, 1.5)
    assert dict(conform(pl.DataFrame({"user_id": ["u"]}), "actions").schema) == ACTIONS


def test_age_is_inferred_only_after_the_burn_in():
    def at(day: int) -> datetime:
        return datetime(2020, 1, day, tzinfo=UTC)

    items = conform(
        pl.DataFrame(
            {"item_id": ["old", "new", "declared", "unseen"], "created_at": [None, None, at(2), None]},
            schema_overrides={"created_at": TIMESTAMP},
        ),
        "items",
    )
    seen = pl.DataFrame(
        {"item_id": ["declared", "new", "old"], "first_seen": [at(9), at(8), at(4)]},
        schema_overrides={"first_seen": TIMESTAMP},
    )
    inferred = infer_created_at(items, seen, date(2020, 1, 5))
    assert inferred["created_at"].to_list() == [None, at(8), at(2), None]
    assert inferred["created_at_inferred"].to_list() == [False, True, False, False]


def test_a_reader_that_cannot_be_imported_is_named():
    spec = load_dataset("completejourney")
    broken = spec.model_copy(update={"source": spec.source.model_copy(update={"reader": "pinloom.nowhere:Reader"})})
    with pytest.raises(UserError, match=r"source.reader 'pinloom.nowhere:Reader'"):
        open_source(broken, 1.0)
