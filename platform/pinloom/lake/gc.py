"""Delete what no pointer or registry alias reaches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pinloom.lake.lake import Lake
from pinloom.lake.manifest import Manifest

GRACE = timedelta(days=1)
"""Younger files are kept: a step may be writing them."""


def reachable(lake: Lake, keep_versions: int = 2) -> dict[str, Manifest]:
    """Manifests that the newest `keep_versions` of every pointer reach through their inputs."""
    seen: dict[str, Manifest] = {}
    stack = _pointer_targets(lake, keep_versions)
    while stack:
        uri = stack.pop()
        if uri in seen or not lake.exists(uri):
            continue
        seen[uri] = lake.manifest(uri)
        stack.extend(ref["uri"] for ref in seen[uri].inputs.values())
    return seen


def _pointer_targets(lake: Lake, keep_versions: int) -> list[str]:
    root = lake.path("pointers")
    if not lake.fs.exists(root):
        return []
    by_name: dict[str, list[str]] = {}
    for path in sorted(lake.fs.find(root)):
        by_name.setdefault(path.rsplit("/", 1)[0], []).append(path)
    return [lake.read_bytes(p).decode() for versions in by_name.values() for p in versions[-keep_versions:]]


def sweep(lake: Lake, *, dry_run: bool, now: datetime | None = None, grace: timedelta = GRACE) -> dict[str, Any]:
    """Remove unreachable manifests and data files older than `grace`. Returns what went."""
    now = now or datetime.now(UTC)
    alive = reachable(lake)
    kept = {_bare(lake, f.uri) for m in alive.values() for o in m.outputs.values() for f in o.files}
    kept |= {_bare(lake, uri) for uri in alive}
    gone, freed = [], 0
    for folder in ("data", "manifests"):
        if not lake.fs.exists(lake.path(folder)):
            continue
        for path, info in lake.fs.find(lake.path(folder), detail=True).items():
            if _bare(lake, path) not in kept and _modified(info) < now - grace:
                gone.append(path)
                freed += int(info.get("size") or 0)
    if not dry_run:
        for path in gone:
            lake.fs.rm_file(path)
    return {"removed" if not dry_run else "would_remove": len(gone), "bytes": freed, "kept_manifests": len(alive)}


def _bare(lake: Lake, uri: str) -> str:
    return str(lake.fs._strip_protocol(uri))


def _modified(info: dict[str, Any]) -> datetime:
    stamp = info.get("mtime") or info.get("LastModified") or 0
    return stamp if isinstance(stamp, datetime) else datetime.fromtimestamp(float(stamp), UTC)


def collect(*, dry_run: bool, dataset: str | None = None) -> dict[str, Any]:
    """`pinloom gc` for one data set's lake."""
    from pinloom.datasets import load_dataset
    from pinloom.settings import get_settings
    from pinloom.steps.job import open_lake

    settings = get_settings()
    return sweep(open_lake(settings, load_dataset(dataset or settings.dataset).name), dry_run=dry_run)
