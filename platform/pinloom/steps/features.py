"""`features`: the item table, histories, user statistics and ranking rows, as of a midnight.

Two passes over the log by user bucket: the first counts items by day, the second writes each bucket's tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field
from tqdm import tqdm

from components.contract import Role, Ties, midnight
from components.errors import UserError
from components.history.build import USER_NUMERIC
from components.history.examples import cross_codes
from components.history.items import ItemTable, moments
from components.history.keys import hashes, keys
from components.history.schema import FeatureSchema
from components.history.statistics import DAY, ITEM_NUMERIC, ItemStatistics, add_up
from pinloom.datasets.spec import DatasetSpec
from pinloom.features import tables
from pinloom.features.blocks import hashed
from pinloom.features.buckets import groups_of, map_buckets
from pinloom.features.content import DIM, Encoder
from pinloom.features.tables import BucketJob, BuildInputs
from pinloom.features.vectors import choose_encoder, read_items, read_table, require_encoder
from pinloom.lake import Manifest
from pinloom.steps.base import Params, Step, StepContext, World, validation_day

S = TypeVar("S")
T = TypeVar("T")

SERVICE = "transact_ranking_v2"
"""Feature service (`feature_repo`) whose definition the ranking rows follow."""

AUTO, REFIT = "auto", "refit"
VERSION = 3


class FeaturesParams(Params):
    """What of the log is used.

    Attributes:
        as_of: midnight of the snapshot; the log ends there. Default: the day after its last partition.
        train_start: first day of training requests (default: the end of the burn-in).
        train_days: the same as days before the validation split; `complete` puts the date in its place.
        sample: share of the training requests, by hash of the request id.
        seed: of the orders of requests and candidates, and of the SVD.
        encoder: of items to vectors. 'auto': that of the model that serves, else of the newest snapshot, if it was
            made for the same declaration; 'refit': a new one; or the URI of the features manifest to take it from.
            `complete` puts the URI ('' for a new one) in its place.
    """

    as_of: date | None = None
    train_start: date | None = None
    train_days: int | None = Field(default=None, ge=1)
    sample: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0
    encoder: str = AUTO


def complete(params: FeaturesParams, world: World) -> FeaturesParams:
    """Dates for days, and the encoder fixed, so that new items get vectors which the model that serves understands.

    Raises:
        UserError: the manifest named has no encoder for what is declared now.
    """
    params = _dated(params, world)
    declared = world.spec.features
    if params.encoder == AUTO:
        others = params.model_dump(mode="json", exclude={"encoder"})
        served = f"champions/{world.settings.serving.recipe}"
        chosen = choose_encoder(world.lake, declared, world.input("actions", params), served, VERSION, others)
    elif params.encoder == REFIT:
        chosen = ""
    else:
        require_encoder(world.lake, params.encoder, declared)
        chosen = params.encoder
    return params.model_copy(update={"encoder": chosen})


def _dated(params: FeaturesParams, world: World) -> FeaturesParams:
    if params.train_days is None:
        return params
    if params.train_start is not None:
        raise UserError("train_start and train_days are both given", "give one of them")
    day = params.as_of or _day_after(world.input("actions", params))
    start = validation_day(world.spec, day) - timedelta(days=params.train_days)
    return params.model_copy(update={"train_start": start, "train_days": None})


def run(ctx: StepContext) -> None:
    source, params = ctx.input("actions"), ctx.params
    day = params.as_of or _day_after(source)
    as_of = midnight(day)
    items = read_items(ctx.lake, source)
    encoder = _encoder(ctx, items)
    schema = feature_schema(ctx.spec)
    job = BucketJob(
        lake_root=ctx.lake.root,
        contract=ctx.spec.contract,
        source=source,
        schema=schema,
        as_of=as_of,
        intervals=_intervals(ctx.spec.as_of(day), params),
        sample=params.sample,
        seed=params.seed,
        home=(ctx.key, ctx.attempt),
        groups=groups_of(ctx.spec.contract.buckets, source.output("actions")),
    )
    table, identity, statistics = _item_table(ctx, job, items, encoder)
    users = tables.with_buckets(read_table(ctx.lake, source, "users"), ctx.spec.contract.buckets)
    _build(ctx, BuildInputs(job, table, identity, cross_codes(table, schema), statistics, users))
    _write_items(ctx, table)
    ctx.output("item_features").parquet("items.parquet", _item_features(table, as_of))
    ctx.output("schema").bytes("schema.json", schema.to_json().encode())
    ctx.metrics |= {
        "as_of": as_of.date().isoformat(),
        "items": len(table) - 1,
        "service": schema.service,
        "vectors": encoder.version,
        "items_without_vector": int(len(table) - 1 - table.vectors[1:].any(axis=1).sum()),
    }


def feature_schema(spec: DatasetSpec) -> FeatureSchema:
    """Names and order of all features that the data set's declaration leads to."""
    contract, declared = spec.contract, spec.features
    cross_counts = [f"log_user_{name}" for name in declared.crosses]
    return FeatureSchema(
        service=SERVICE,
        heads=contract.heads,
        actions=tuple(contract.action_index),
        item_numeric=ITEM_NUMERIC,
        candidate_numeric=(*ITEM_NUMERIC, "log_user_item", "log_user_item_days", *cross_counts),
        user_numeric=USER_NUMERIC,
        categorical=tuple(dict.fromkeys((*declared.categorical, *declared.crosses))),
        crosses=declared.crosses,
        sequence_length=declared.sequence_length,
        vector_dim=DIM,
        positive=tuple(contract.action_index[a] for a in contract.names(Role.POSITIVE)),
        exposures=tuple(contract.action_index[a] for a in contract.names(Role.IMPRESSION)),
        max_history=contract.max_history,
        ordered_ties=contract.ties is Ties.ORDERED,
    )


def _day_after(source: Manifest) -> date:
    days = source.output("actions").partitions()
    if not days:
        raise UserError("the actions table has no partitions", "ingest at least one day: `pinloom ingest`")
    return date.fromisoformat(days[-1]) + timedelta(days=1)


def _intervals(spec: DatasetSpec, params: FeaturesParams) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[datetime, datetime]] = {s: spec.contract.splits.interval(s) for s in tables.SPLITS}
    if params.train_start is not None:
        start, stop = midnight(params.train_start), found["train"][1]
        if start >= stop:
            raise UserError(
                f"train_start {params.train_start} is not before the validation split ({stop.date()})",
                "choose an earlier day, or move `contract.splits.validation` of the data set",
            )
        found["train"] = (start, stop)
    return {s: (tables.micros(a), tables.micros(b)) for s, (a, b) in found.items()}


def _encoder(ctx: StepContext, items: pl.DataFrame) -> Encoder:
    """The encoder that the parameter names, its files handed on; or a new one, its files written."""
    origin = ctx.params.encoder
    if origin:
        ctx.output("encoder").adopt(ctx.lake.manifest(origin).output("encoder").files)
        return require_encoder(ctx.lake, origin, ctx.spec.features)
    fitted = Encoder.fit(items, ctx.spec.features, ctx.params.seed)
    for name, content in fitted.files.items():
        ctx.output("encoder").bytes(name, content)
    return fitted


def _item_table(
    ctx: StepContext, job: BucketJob, items: pl.DataFrame, encoder: Encoder
) -> tuple[ItemTable, NDArray[np.int32], ItemStatistics]:
    """The item table as of the snapshot, the hash of every item id, and the statistics of any other midnight."""
    counts = _on_groups(ctx, "count", tables.count_group, (job, items["item_id"]), job)
    statistics = ItemStatistics.from_daily(add_up(counts), moments(items["created_at"]))
    rows = np.arange(items.height)
    numeric = statistics.as_of(rows, np.full(len(rows), job.as_of_us // DAY))
    numeric[0] = 0
    identity = hashes(items["item_id"])
    table = ItemTable(
        keys=np.where(rows == 0, -1, keys(items["item_id"])),
        vectors=encoder.encode(items),
        categorical=hashed(items, job.schema.categorical),
        hash=np.where(numeric[:, ITEM_NUMERIC.index("log_positives")] > 0, identity, 0).astype(np.int32),
        numeric=numeric,
        labels=items.select("item_id", "created_at", "category", "title").with_row_index("row"),
    )
    return table, identity, statistics


def _build(ctx: StepContext, inputs: BuildInputs) -> None:
    for files in _on_groups(ctx, "build", tables.build_group, inputs, inputs.job):
        for output, entries in files.items():
            ctx.output(output).adopt(tuple(entries))
    for output in ("examples", "full_requests"):
        written = ctx.output(output).output()
        for split in tables.SPLITS:
            rows = sum(f.rows or 0 for f in written.files if f.partition == split)
            ctx.metrics[f"{output}_{split}"] = rows


def _on_groups(ctx: StepContext, what: str, work: Callable[[S, int], T], shared: S, job: BucketJob) -> Iterator[T]:
    """`work` on every group of buckets, with a bar that counts them."""
    results = map_buckets(work, shared, len(job.groups), ctx.input("actions").output("actions").rows, ctx.settings)
    yield from tqdm(results, total=len(job.groups), unit="group", desc=f"features: {what}")


def _write_items(ctx: StepContext, table: ItemTable) -> None:
    folder = ctx.scratch / "items"
    table.save(folder)
    for path in sorted(folder.iterdir()):
        ctx.output("items").upload(path, rows=len(table))


def _item_features(table: ItemTable, as_of: datetime) -> pl.DataFrame:
    """What Feast's offline store reads: the same numbers as the item table, by item id."""
    vectors = pl.Series(np.asarray(table.vectors, np.float32)).cast(pl.List(pl.Float32))
    numeric = {name: table.numeric[:, i] for i, name in enumerate(ITEM_NUMERIC)}
    frame = pl.DataFrame({"item_id": table.ids, **numeric, "vector": vectors})
    return frame[1:].with_columns(event_timestamp=pl.lit(as_of, dtype=pl.Datetime("us", "UTC")))


STEP = Step(
    name="features",
    version=VERSION,
    run=run,
    params=FeaturesParams,
    inputs={"actions": "actions"},
    advances="features",
    reads=("contract", "features"),
    complete=complete,
)
