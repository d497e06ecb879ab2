"""Feature building against one Polars group-by of the same log, and its growth with the log.

The log is generated and laid as `validate` lays it: a file a day, a row group a user bucket. The size of a bucket and
the catalogue (10,000 items) are the same whatever the log's size, so that what grows is the log. Each measurement is a
process of its own, counts CPU seconds without imports (other work on the machine disturbs them least) and reads its own
peak of memory. The best of several rounds finds the encoder of an earlier one, as every day but the first does.

Two rivals, each one sort and group-by by user, newest first, of the whole log in memory, written as Parquet: of what
enters a history, against the building of histories; of all rows, against the whole step. Both read from the same files
the same columns, `bucket` apart, and write what they made with zstd. The step reads the positives once more, for the
statistics of items, and writes not each action once but a row per request with up to 100 actions of its user in it:
how much more that is, is a figure of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from benchmarks._report import Figure, arguments, report
from components.contract import ACTIONS, ITEMS, USERS
from components.generator import Catalogue, People, World, simulate
from components.history import kernels
from components.history.examples import lists
from components.history.log import UserLog, newest_first, with_rows
from pinloom.datasets.spec import DatasetSpec
from pinloom.features import buckets
from pinloom.features.buckets import read_bucket
from pinloom.features.tables import ACTION_COLUMNS
from pinloom.lake import FileEntry, Lake, Manifest, Output, OutputWriter
from pinloom.settings import Settings
from pinloom.steps.base import load_step, run_step

HISTORY = ["item_id", "action", "timestamp", "surface", "event_id"]


@dataclass(frozen=True)
class Size:
    """Actions of the two logs, users of a bucket (of 250 actions each), and how often the small log is measured."""

    small: int
    large: int
    users_per_bucket: int
    rounds: int


@dataclass(frozen=True)
class Cost:
    """CPU seconds, peak of memory in MB, MB written."""

    cpu: float
    peak: float
    written: float

    @classmethod
    def best(cls, costs: list[Cost]) -> Cost:
        return cls(*(min(values) for values in zip(*map(astuple, costs), strict=True)))


SIZES = {True: Size(200_000, 1_000_000, 400, 1), False: Size(1_000_000, 30_000_000, 2_000, 3)}


@dataclass(frozen=True)
class FixedCatalogue(World):
    """A world whose catalogue does not grow with the log."""

    @property
    def items(self) -> int:
        return 10_000


def declare(world: World) -> DatasetSpec:
    contract = {
        "name": "benchmark",
        "actions": [
            {"name": "impression", "role": "impression"},
            {"name": "click", "role": "positive"},
            {"name": "save", "role": "positive"},
            {"name": "hide", "role": "negative"},
        ],
        "ties": "ordered",
        "splits": dict(
            zip(("burn_in", "validation", "test", "end"), map(world.day, (0.1, 0.7, 0.85, 1.0)), strict=True)
        ),
        "buckets": world.buckets,
    }
    features = {"categorical": ["topic"], "text": ["title"], "crosses": ["topic"]}
    return DatasetSpec.model_validate({"contract": contract, "source": {}, "features": features})


def lay(world: World, lake: Lake) -> None:
    """Generate the log and point `actions` at it; memory is that of one bucket."""
    catalogue = Catalogue(world)
    writers = {name: lake.writer("validate", "log", name, "0") for name in ("actions", "items", "users")}
    with ExitStack() as open_files:
        days: dict[str, pq.ParquetWriter] = {}
        for bucket in range(world.buckets):
            rows = _contract_rows(simulate(world, catalogue, People(world, bucket), bucket), bucket)
            for (day,), part in rows.group_by(pl.col("timestamp").dt.date(), maintain_order=True):
                table = part.to_arrow(compat_level=pl.CompatLevel.oldest())
                if str(day) not in days:
                    days[str(day)] = _open(open_files, writers["actions"], str(day), table)
                days[str(day)].write_table(table, row_group_size=part.height)
    items = catalogue.frame()
    created = pl.from_epoch("created_ms", "ms").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    named = items.select(item_id="item", created_at=created, category="topic", title="title")
    topic = items["topic"].alias("features.topic")
    writers["items"].parquet(
        "items.parquet", pl.concat([pl.DataFrame(schema=ITEMS), named], how="diagonal").with_columns(topic)
    )
    writers["users"].parquet("users.parquet", pl.DataFrame(schema=USERS))
    outputs = {name: writer.output() for name, writer in writers.items()}
    # As `validate` counts them; here a file's rows are known only when it is closed.
    outputs["actions"] = Output(files=tuple(map(_counted, outputs["actions"].files)))
    manifest = Manifest(step="validate", version=1, key="log", created_at=datetime.now(UTC), outputs=outputs)
    published = lake.publish(manifest)
    lake.advance("actions", lambda _: published)


def _counted(file: FileEntry) -> FileEntry:
    return file.model_copy(update={"rows": pq.read_metadata(file.uri.removeprefix("file://")).num_rows})


def _open(files: ExitStack, output: OutputWriter, day: str, table: object) -> pq.ParquetWriter:
    # Closed in the reverse order: first the Parquet footer, then the file, which then enters the manifest.
    raw = files.enter_context(output.open(f"{day}.parquet", partition=day))
    return files.enter_context(pq.ParquetWriter(raw, table.schema, compression="zstd"))  # type: ignore[attr-defined]


def _contract_rows(log: pl.DataFrame, bucket: int) -> pl.DataFrame:
    stamp = pl.from_epoch("time_ms", "ms").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    named = log.with_row_index().select(
        event_id=pl.concat_str(pl.lit(f"e{bucket}-"), "index"),
        user_id="user",
        item_id="item",
        action=pl.col("action").cast(pl.String),
        timestamp=stamp,
        surface=pl.col("surface").cast(pl.String),
        session_id=pl.col("session").cast(pl.String),
        request_id=pl.col("request").cast(pl.String),
    )
    rows = pl.concat([pl.DataFrame(schema=ACTIONS), named], how="diagonal")
    return rows.with_columns(bucket=pl.lit(bucket, pl.UInt32)).sort("user_id", "timestamp", maintain_order=True)


# -- what is measured, each in a process of its own --------------------------------------------------


def build_all(lake: Lake, world: World, scratch: Path) -> None:
    """The step, whole: statistics, content vectors, histories and ranking rows, in this process."""
    buckets.RAY_ROWS = sys.maxsize
    # One bucket at once: groups would be smaller in the small log, which is a little over two buckets.
    buckets.GROUP_ROWS = 1
    params = {"seed": time.time_ns() % 2**31}  # another key each time, else it is a no-op
    settings = Settings(home=scratch)
    run_step(load_step("features"), lake=lake, settings=settings, spec=declare(world), params=params)


def build_histories(lake: Lake, world: World, scratch: Path) -> None:
    """The part of the step that makes histories, bucket by bucket."""
    source, contract = lake.require("actions"), declare(world).contract
    items = pl.read_parquet(source.file("items", "items.parquet"))["item_id"].sort()
    end = datetime.now(UTC) + timedelta(days=1)
    columns = [c for c in ACTION_COLUMNS if c not in ("request_id", "sampling_probability")]
    for bucket in range(world.buckets):
        rows = read_bucket(lake, source.output("actions"), bucket, columns, end)
        log = UserLog.from_actions(with_rows(rows, items), contract)
        _as_lists(log).write_parquet(scratch / f"{bucket}.parquet", compression="zstd")


def _as_lists(log: UserLog) -> pl.DataFrame:
    at, offsets = newest_first(log.start[:-1], log.start[1:])
    arrays = (log.item, log.action, log.timestamp, log.surface, log.event)
    named = zip(HISTORY, (lists(a[at], offsets) for a in arrays), strict=True)
    return pl.DataFrame({"user_id": log.users}).with_columns(**dict(named))


def group_by(lake: Lake, world: World, scratch: Path) -> None:
    """The rival of the histories: one group-by of the actions that enter them."""
    _grouped(_scan(lake).filter(pl.col("action") != "impression"), HISTORY, scratch)


def group_by_all(lake: Lake, world: World, scratch: Path) -> None:
    """The rival of the whole step: one group-by of all rows, with the columns that the step reads."""
    _grouped(_scan(lake), [c for c in ACTION_COLUMNS if c != "user_id"], scratch)


def _scan(lake: Lake) -> pl.LazyFrame:
    return pl.scan_parquet([uri.removeprefix("file://") for uri in lake.require("actions").output("actions").uris])


def _grouped(rows: pl.LazyFrame, columns: list[str], scratch: Path) -> None:
    newest = rows.sort("user_id", "timestamp", descending=[False, True])
    newest.group_by("user_id").agg(columns).collect().write_parquet(scratch / "all.parquet", compression="zstd")


MEASURED: dict[str, Callable[[Lake, World, Path], None]] = {
    "all": build_all,
    "histories": build_histories,
    "group_by": group_by,
    "group_by_all": group_by_all,
}


def measure(what: str, root: Path, actions: int, size: Size) -> Cost:
    """One measurement in a new process."""
    sizes = (str(actions), str(size.users_per_bucket))
    command = [sys.executable, "-m", "benchmarks.features", "--measure", what, str(root), *sizes]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def _measure_here(what: str, root: Path, actions: int, users_per_bucket: int) -> None:
    lake, world = Lake(f"file://{root}/lake"), FixedCatalogue(actions, users_per_bucket=users_per_bucket)
    _import()
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        held, before = _megabytes(root), time.process_time()
        MEASURED[what](lake, world, Path(scratch))
        cpu = time.process_time() - before
        written = _megabytes(root) - held
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps(asdict(Cost(cpu, int(peak.split()[1]) / 1024, written))))


def _megabytes(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def _import() -> None:
    """Imports are not what is measured, nor is compiled code, which is loaded at the first call of a kernel."""
    load_step("features")
    i64, i32, u64 = (np.zeros(0, t) for t in (np.int64, np.int32, np.uint64))
    kernels.sort_segments(i64, i64, u64, i64)
    kernels.positions(i64, i64, i64, i64, i64)
    kernels.occurrences(i32, i64, i64, i64, i64, i32, 1, i32, i64)
    kernels.totals_before(i64, i64, i64, i64, i64, i64, 7, 28, np.zeros((0, 4), np.int64))


def figures(quick: bool) -> list[Figure]:
    size = SIZES[quick]
    with tempfile.TemporaryDirectory() as folder:
        roots = {actions: Path(folder) / str(actions) for actions in (size.small, size.large)}
        for actions, root in roots.items():
            lay(FixedCatalogue(actions, users_per_bucket=size.users_per_bucket), Lake(f"file://{root}/lake"))
        at_large = measure("all", roots[size.large], size.large, size)
        turns = [{w: measure(w, roots[size.small], size.small, size) for w in MEASURED} for _ in range(size.rounds)]
    best = {w: Cost.best([turn[w] for turn in turns]) for w in MEASURED}
    whole, rival = best["all"], best["group_by_all"]
    return [
        _ratio("histories / group-by of them", best["histories"].cpu, best["group_by"].cpu),
        _ratio("whole step / group-by of all rows", whole.cpu, rival.cpu),
        Figure("whole step / group-by of all rows, MB written", whole.written / rival.written, 1.0, "-", True),
        *_growth(size, whole, at_large),
    ]


def _ratio(name: str, ours: float, rival: float) -> Figure:
    return Figure(f"{name}, CPU", ours / rival, 1.0, "<= 2", ours <= 2 * rival)


def _growth(size: Size, small: Cost, large: Cost) -> list[Figure]:
    """Time per action and peak memory of the large log against the small one."""
    grown = f"{size.small / 1e6:g}M -> {size.large / 1e6:g}M actions"
    before, after = small.cpu / size.small * 1e6, large.cpu / size.large * 1e6
    return [
        Figure(f"CPU s per million, {grown}", after, before, "<= 1.2x", after <= 1.2 * before),
        Figure(f"peak MB, {grown}", large.peak, small.peak, "<= 1.2x", large.peak <= 1.2 * small.peak),
    ]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--measure", nargs=4, metavar=("WHAT", "ROOT", "ACTIONS", "USERS"), help="one, in here")
    args = parser.parse_args()
    if args.measure:
        what, root, *sizes = args.measure
        _measure_here(what, Path(root), *map(int, sizes))
        return 0
    return 0 if report(figures(args.quick), args.json) else 1


if __name__ == "__main__":
    sys.exit(main())
