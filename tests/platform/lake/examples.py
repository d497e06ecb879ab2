"""Small manifests to test with."""

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
