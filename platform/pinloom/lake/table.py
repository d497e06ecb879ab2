"""A table that grows by partitions: a pointer to immutable manifests, each holding every partition known so far."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from pinloom.lake.lake import Lake
from pinloom.lake.manifest import FileEntry, Manifest, Output


def merge_partitions(
    lake: Lake,
    name: str,
    part: Manifest,
    *,
    partitioned: Collection[str],
    whole: Collection[str] = (),
    covers: Collection[str] = (),
    now: datetime,
) -> Manifest:
    """Advance table pointer `name` with what `part` holds. Idempotent, and safe beside others merging.

    The table's manifest has step `table/<name>`, and its key is its content: the same partitions merged in any order
    end in the same manifest.

    Args:
        partitioned: outputs of which partitions are replaced one by one, the others kept.
        whole: outputs that replace the table's output of that name.
        covers: partitions that `part` speaks for even when it has no file for them: they leave the table.
    """

    def merged(current: Manifest | None) -> Manifest:
        outputs = dict(current.outputs) if current else {}
        outputs |= {n: part.output(n) for n in whole}
        outputs |= {n: _replaced(outputs.get(n, Output()), part.output(n), covers) for n in partitioned}
        table = Manifest(
            step=f"table/{name}",
            version=1,
            key="",
            created_at=now,
            outputs=outputs,
            metrics={"rows": {n: o.rows for n, o in outputs.items()}},
            inputs={"part": {"uri": part.uri, "sha256": part.content_hash()}},
        )
        return lake.publish(table.model_copy(update={"key": table.content_hash()}))

    return lake.advance(name, merged)


def _replaced(old: Output, new: Output, covers: Collection[str]) -> Output:
    gone = {*covers, *new.partitions()}
    kept: tuple[FileEntry, ...] = tuple(f for f in old.files if f.partition not in gone)
    return Output(files=tuple(sorted((*kept, *new.files), key=lambda f: (f.partition, f.uri))))
