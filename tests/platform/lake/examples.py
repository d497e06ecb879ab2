"""Small manifests to test with."""

import uuid
from datetime import UTC, datetime

from pinloom.lake import Lake, Manifest, Output

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def published(
    lake: Lake, step: str, key: str, files: dict[str, dict[str, bytes]] | None = None, inputs: tuple[Manifest, ...] = ()
) -> Manifest:
    """Publish a manifest with `files`: output → partition → content."""
    outputs: dict[str, Output] = {}
    for output, by_partition in (files or {}).items():
        writer = lake.writer(step, key, output, "attempt")
        for partition, content in by_partition.items():
            writer.bytes(f"{partition or 'all'}.bin", content, partition=partition, rows=len(content))
        outputs[output] = writer.output()
    refs = {f"input{n}": {"uri": m.uri, "sha256": m.content_hash()} for n, m in enumerate(inputs)}
    return lake.publish(Manifest(step=step, version=1, key=key, created_at=NOW, outputs=outputs, inputs=refs))


def mirrored(lake: Lake) -> Lake:
    """The same lake in memory, where no file lies beside another until it is fetched."""
    other = Lake(f"memory://{uuid.uuid4().hex}")
    for path in lake.fs.find(lake.root):
        uri, content = f"file://{path}".replace(lake.root, other.root), lake.read_bytes(path)
        if "/manifests/" in path or "/pointers/" in path:
            content = content.replace(lake.root.encode(), other.root.encode())
        other.create(uri, content)
    return other
