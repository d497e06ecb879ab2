"""Writing an output: files under a fresh prefix, hashed while they are written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pinloom.lake.manifest import FileEntry, Output

if TYPE_CHECKING:
    import fsspec
    import polars as pl


class _HashingFile:
    """A write-only file object that hashes and counts what passes through."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.sha = hashlib.sha256()
        self.bytes = 0

    def write(self, data: Any) -> int:
        self.sha.update(data)
        self.bytes += memoryview(data).nbytes
        self._raw.write(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        self._raw.flush()

    def close(self) -> None:
        """Closing is the writer's: libraries that close what they were given must not end the upload early."""

    @property
    def closed(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


class OutputWriter:
    """Collects the files of one output of a step. Nothing is visible until the manifest is published."""

    def __init__(self, fs: fsspec.AbstractFileSystem, prefix: str) -> None:
        self.fs = fs
        self.prefix = prefix
        self._files: dict[str, FileEntry] = {}

    @contextmanager
    def open(self, name: str, *, partition: str = "", rows: int | None = None) -> Iterator[Any]:
        """Binary file object for `name`; entered into the manifest when it closes without an error."""
        uri = f"{self.prefix}/{name}"
        assert uri not in self._files, f"{uri} is written twice"
        self.fs.makedirs(uri.rsplit("/", 1)[0], exist_ok=True)
        with self.fs.open(uri, "wb") as raw:
            hashing = _HashingFile(raw)
            yield hashing
        self._files[uri] = FileEntry(
            uri=uri, sha256=hashing.sha.hexdigest(), bytes=hashing.bytes, rows=rows, partition=partition
        )

    def parquet(
        self,
        name: str,
        frame: pl.DataFrame,
        *,
        partition: str = "",
        row_group_size: int | None = None,
        level: int | None = None,
    ) -> None:
        """Write one zstd Parquet file, compressed at `level` (default: Polars' own)."""
        with self.open(name, partition=partition, rows=frame.height) as f:
            frame.write_parquet(f, compression="zstd", compression_level=level, row_group_size=row_group_size)

    def bytes(self, name: str, content: bytes, *, partition: str = "", rows: int | None = None) -> None:
        with self.open(name, partition=partition, rows=rows) as f:
            f.write(content)

    def upload(self, local: Path, *, name: str | None = None, partition: str = "", rows: int | None = None) -> None:
        """Copy a local file, or a folder with its tree, into the output."""
        if local.is_dir():
            for path in sorted(p for p in local.rglob("*") if p.is_file()):
                self.upload(path, name=f"{name or local.name}/{path.relative_to(local)}", partition=partition)
            return
        with (
            self.open(name or local.name, partition=partition, rows=rows) as target,
            local.open("rb") as source,
        ):
            while chunk := source.read(1 << 20):
                target.write(chunk)

    def adopt(self, files: tuple[FileEntry, ...]) -> None:
        """Enter files that another process (a Ray task) wrote under this prefix, or that an input already holds."""
        self._files |= {f.uri: f for f in files}

    def output(self) -> Output:
        return Output(files=tuple(sorted(self._files.values(), key=lambda f: (f.partition, f.uri))))
