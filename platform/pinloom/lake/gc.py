"""Delete what no pointer, registry alias or fresh result reaches. Not while steps run that find old manifests again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pinloom.lake.lake import Lake
from pinloom.lake.manifest import Manifest

GRACE = timedelta(days=1)
"""Younger files are kept: a step may be writing them, a job may be about to read them."""

KEEP_VERSIONS = 2
"""Of every pointer: the newest, and the one to go back to."""


def reachable(lake: Lake, roots: Iterable[str]) -> dict[str, Manifest]:
    """Manifests that `roots` (URIs) reach through their inputs, themselves included."""
    seen: dict[str, Manifest] = {}
    stack = list(roots)
    while stack:
        uri = stack.pop()
        if uri in seen or not lake.exists(uri):
            continue
        seen[uri] = lake.manifest(uri)
        stack.extend(ref["uri"] for ref in seen[uri].inputs.values())
    return seen


def pointer_targets(lake: Lake) -> list[str]:
    """URIs that the newest versions of every pointer name."""
    by_name: dict[str, list[str]] = {}
    for path, _ in _files(lake, "pointers"):
        if Path(path).stem.isdigit():
            by_name.setdefault(path.rsplit("/", 1)[0], []).append(path)
    return [lake.read_bytes(p).decode() for versions in by_name.values() for p in sorted(versions)[-KEEP_VERSIONS:]]


def fresh_results(lake: Lake, since: datetime) -> list[str]:
    """URIs of manifests in results of jobs written after `since`: a later job may be about to read them."""
    texts = [lake.read_bytes(path) for path, info in _files(lake, "results") if modified(info) >= since]
    return [uri for text in texts for uri in json.loads(text).get("manifests", {}).values()]


def sweep(
    lake: Lake, *, dry_run: bool, aliased: Iterable[str] = (), now: datetime | None = None, grace: timedelta = GRACE
) -> dict[str, Any]:
    """Remove unreachable manifests and data files older than `grace`.

    Args:
        aliased: URIs of manifests that the registry's aliases name.

    Returns:
        How many files went (or would go), their bytes, and how many manifests stay.
    """
    since = old_before(now, grace)
    alive = reachable(lake, [*pointer_targets(lake), *fresh_results(lake, since), *aliased])
    kept = {_bare(lake, f.uri) for m in alive.values() for o in m.outputs.values() for f in o.files}
    kept |= {_bare(lake, uri) for uri in alive}
    # Manifests first: one without its files would pass for done.
    gone = [
        (path, int(info.get("size") or 0))
        for folder in ("manifests", "data")
        for path, info in _files(lake, folder)
        if _bare(lake, path) not in kept and modified(info) < since
    ]
    if not dry_run:
        for path, _ in gone:
            lake.fs.rm_file(path)
    return {
        "would_remove" if dry_run else "removed": len(gone),
        "bytes": sum(size for _, size in gone),
        "kept_manifests": len(alive),
    }


def _files(lake: Lake, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if lake.exists(lake.path(folder)):
        yield from lake.fs.find(lake.path(folder), detail=True).items()


def _bare(lake: Lake, uri: str) -> str:
    return str(lake.fs._strip_protocol(uri))


def old_before(now: datetime | None = None, grace: timedelta = GRACE) -> datetime:
    """Files written before this moment are nobody's work in progress."""
    return (now or datetime.now(UTC)) - grace


def modified(info: dict[str, Any]) -> datetime:
    """When a file was written, from what its file system says of it."""
    stamp = info.get("mtime") or info.get("LastModified") or info.get("created") or 0
    return stamp if isinstance(stamp, datetime) else datetime.fromtimestamp(float(stamp), UTC)


def collect(*, dry_run: bool, dataset: str | None = None) -> dict[str, Any]:
    """`pinloom gc` for one data set's lake."""
    from pinloom.datasets import load_dataset
    from pinloom.registry import Registry
    from pinloom.settings import get_settings
    from pinloom.steps.job import open_lake
    from pinloom.steps.landed import tidy

    settings = get_settings()
    name = load_dataset(dataset or settings.dataset).name
    aliased = Registry(settings, name).aliased()
    lake = open_lake(settings, name)
    return sweep(lake, dry_run=dry_run, aliased=aliased) | tidy(lake, old_before(), dry_run=dry_run)
