"""The lake of one data set, on any fsspec file system with create-if-absent (file://, s3://, memory://).

Layout under the root:

    data/<step>/<key>-<attempt>/<output>/…   files, immutable
    manifests/<step>/<key>.json              the commit
    pointers/<name>/<00000042>.json          history of a pointer; the highest number is `latest`
    results/<job>.json                       manifests that one job published
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import fsspec

from components.errors import UserError
from pinloom.lake.manifest import Manifest, Output
from pinloom.lake.writer import OutputWriter


class PointerMoved(RuntimeError):
    """Somebody else moved the pointer first: read it again and decide again."""


class Lake:
    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self.fs, _ = fsspec.core.url_to_fs(self.root)
        self.is_local = self.root.startswith("file://")

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    # -- reading ---------------------------------------------------------------------------------

    def read_bytes(self, uri: str) -> bytes:
        try:
            with self.fs.open(uri, "rb") as f:
                return bytes(f.read())
        except FileNotFoundError as e:
            raise UserError(f"{uri} does not exist", "check the URI, or run the step that publishes it") from e

    def local_path(self, uri: str) -> Path:
        """A local file with the content of `uri`: itself on file://, else a cached download."""
        if uri.startswith("file://"):
            return Path(uri.removeprefix("file://"))
        cache = Path(tempfile.gettempdir()) / "pinloom-cache" / uri.split("://", 1)[1]
        if not cache.exists():
            cache.parent.mkdir(parents=True, exist_ok=True)
            partial = cache.with_name(f"{cache.name}.{uuid.uuid4().hex}")
            self.fs.get_file(uri, str(partial))
            partial.replace(cache)
        return cache

    def local_paths(self, output: Output) -> list[str]:
        return [str(self.local_path(uri)) for uri in output.uris]

    def manifest(self, uri: str) -> Manifest:
        return Manifest.model_validate_json(self.read_bytes(uri)).model_copy(update={"uri": uri})

    def exists(self, uri: str) -> bool:
        return bool(self.fs.exists(uri))

    # -- publishing ------------------------------------------------------------------------------

    def create(self, uri: str, content: bytes) -> bool:
        """Write `uri` unless it exists, atomically. True when this call wrote it."""
        if self.is_local:
            return _create_local(Path(uri.removeprefix("file://")), content)
        try:
            self.fs.pipe_file(uri, content, mode="create")
        except FileExistsError:
            return False
        return True

    def manifest_uri(self, step: str, key: str) -> str:
        return self.path("manifests", step, f"{key}.json")

    def find(self, step: str, key: str) -> Manifest | None:
        uri = self.manifest_uri(step, key)
        return self.manifest(uri) if self.exists(uri) else None

    def writer(self, step: str, key: str, output: str, attempt: str) -> OutputWriter:
        return OutputWriter(self.fs, self.path("data", step, f"{key}-{attempt}", output))

    def publish(self, manifest: Manifest) -> Manifest:
        """Commit. When another attempt with the same key came first, that one stands and is returned."""
        uri = self.manifest_uri(manifest.step, manifest.key)
        final = manifest.model_copy(update={"uri": uri})
        if self.create(uri, final.model_dump_json(indent=1).encode()):
            return final
        return self.manifest(uri)

    def replace_manifest(self, manifest: Manifest) -> None:
        """Rewrite a manifest whose effect outside the lake was repaired (an emptied store filled again)."""
        self.fs.pipe_file(manifest.uri, manifest.model_dump_json(indent=1).encode())

    # -- pointers --------------------------------------------------------------------------------

    def pointer_version(self, name: str) -> int:
        folder = self.path("pointers", name)
        if not self.fs.exists(folder):
            return 0
        self.fs.invalidate_cache(folder)
        names = [Path(p).stem for p in self.fs.ls(folder, detail=False)]
        return max((int(n) for n in names if n.isdigit()), default=0)

    def latest(self, name: str, as_of: datetime | None = None) -> Manifest | None:
        """The manifest that pointer `name` names (as of a time, if given), or None."""
        version = self.pointer_version(name)
        while version > 0:
            uri = self.read_bytes(self.path("pointers", name, f"{version:08d}.json")).decode()
            manifest = self.manifest(uri)
            if as_of is None or manifest.created_at <= as_of:
                return manifest
            version -= 1
        return None

    def require(self, name: str) -> Manifest:
        found = self.latest(name)
        if found is None:
            raise UserError(
                f"nothing is published as '{name}' in {self.root}",
                "run the step that publishes it first (see `pinloom steps`), or check PINLOOM_LAKE",
            )
        return found

    def move(self, name: str, manifest_uri: str, expected: int) -> int:
        """Compare-and-swap: point `name` at a manifest if it still has version `expected`.

        Raises:
            PointerMoved: another writer came first.
        """
        if not self.create(self.path("pointers", name, f"{expected + 1:08d}.json"), manifest_uri.encode()):
            raise PointerMoved(f"pointer '{name}' moved beyond version {expected}")
        return expected + 1

    def advance(self, name: str, make: Callable[[Manifest | None], Manifest]) -> Manifest:
        """Move `name` to `make(current)`, again after each lost race. No move when it names the same manifest."""
        while True:
            version = self.pointer_version(name)
            current = self.latest(name)
            new = make(current)
            if current is not None and current.uri == new.uri:
                return current
            try:
                self.move(name, new.uri, version)
            except PointerMoved:
                continue
            return new


def _create_local(path: Path, content: bytes) -> bool:
    """Exclusive creation with the content complete: a hard link to a finished temporary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    partial.write_bytes(content)
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        partial.unlink()
    return True
