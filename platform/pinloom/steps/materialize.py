"""`materialize`: the item table for serving, and the online store filled through Feast with every user's past.

The store is outside the lake, so the commit looks at it, not at the manifest: an emptied one is filled again. Feast is
imported when it is needed: it takes longer to import than many a snapshot takes to build.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl

from components.contract import midnight
from pinloom.lake import Manifest
from pinloom.steps.base import Step, StepContext


def run(ctx: StepContext) -> None:
    from pinloom.features.store import project_name

    features = ctx.input("features")
    ctx.output("snapshot").adopt(features.output("items").files)
    ctx.output("schema").adopt(features.output("schema").files)
    # A batch source without rows: no materialization of Feast's can overwrite the realtime tail.
    histories = pl.read_parquet(ctx.lake.local_path(features.output("histories").uris[0]), n_rows=0)
    ctx.output("tail").parquet("tail.parquet", histories)
    tail = ctx.output("tail").output().uris[0]
    project = project_name(ctx.spec.name)
    ctx.output("registry").upload(_registry(ctx, features, project, tail))
    ctx.metrics |= {
        "project": project,
        "as_of": features.metrics["as_of"],
        "service": features.metrics["service"],
        "vectors": features.metrics["vectors"],
        "users": features.output("histories").rows,
    }


def _registry(ctx: StepContext, features: Manifest, project: str, tail: str) -> Path:
    """The definitions over this manifest's files, as Feast's registry."""
    from feature_repo.definitions import Sources, define
    from pinloom.features.store import apply

    folders = {o: _folder(features, o) for o in ("histories", "user_stats", "item_features")}
    path = ctx.scratch / "registry.db"
    apply(define(Sources(**folders, tail=tail.removeprefix("file://"))).objects, project, path, ctx.scratch)
    return path


def _folder(features: Manifest, output: str) -> str:
    return features.output(output).uris[0].rsplit("/", 1)[0].removeprefix("file://")


def commit(ctx: StepContext, manifest: Manifest) -> None:
    from pinloom.features.fill import bring_up
    from pinloom.features.store import OnlineStore

    registry = ctx.lake.local_path(manifest.file("registry", "registry.db"))
    store = OnlineStore(ctx.settings, str(manifest.metrics["project"]), registry)
    features = ctx.input("features")
    histories = ctx.lake.local_paths(features.output("histories"))
    bring_up(store, histories, midnight(date.fromisoformat(features.metrics["as_of"])))


STEP = Step(
    name="materialize",
    version=2,
    run=run,
    commit=commit,
    inputs={"features": "features"},
    advances="online",
    reads=("contract.name",),
)
