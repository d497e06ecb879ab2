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
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import fsspec
from pydantic import ValidationError

from components.errors import UserError
from pinloom.lake.manifest import Manifest, Output
from pinloom.lake.writer import OutputWriter

_MEMORY = threading.Lock()
"""memory:// looks and writes in two steps; the stores that matter do it in one."""


class PointerMoved(RuntimeError):
    """Somebody else moved the pointer first: read it again and decide again."""


class Lake:
    """Files, manifests and pointers under one root.

    Args:
        root: fsspec URL, or a local path.

    Raises:
        UserError: no such kind of store.
    """

    def __init__(self, root: str) -> None:
        self.root = (root if "://" in root else f"file://{Path(root).resolve()}").rstrip("/")
        try:
            # A cached listing would hide what others published.
            self.fs, _ = fsspec.core.url_to_fs(self.root, use_listings_cache=False)
        except (ValueError, ImportError) as e:
            raise UserError(f"no lake can be opened at {root}: {e}", "check PINLOOM_LAKE: file://…, s3://…") from e
        self.is_local = self.root.startswith("file://")

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    # -- reading ---------------------------------------------------------------------------------

    def read_bytes(self, uri: str) -> bytes:
        """Content of a file of this lake.

        Raises:
            UserError: there is no such file.
        """
        content = self._read(uri)
        if content is None:
            raise UserError(f"{uri} does not exist", "check the URI, or run the step that publishes it")
        return content

    def _read(self, uri: str) -> bytes | None:
        try:
            return bytes(self.fs.cat_file(uri))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

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

    def local_folder(self, output: Output) -> Path:
        """The local folder with all files of an output that lies in one, as an artifact does."""
        folders = {self.local_path(uri).parent for uri in output.uris}
        assert len(folders) == 1, f"{output.uris} lie in {len(folders)} folders"
        return folders.pop()

    def manifest(self, uri: str) -> Manifest:
        """The manifest at `uri`.

        Raises:
            UserError: there is none, or the file is not a manifest.
        """
        return _parsed(uri, self.read_bytes(uri))

    def exists(self, uri: str) -> bool:
        return bool(self.fs.exists(uri))

    # -- publishing ------------------------------------------------------------------------------

    def create(self, uri: str, content: bytes) -> bool:
        """Write `uri` unless it exists, atomically. True when this call wrote it."""
        if self.is_local:
            return _create_local(Path(uri.removeprefix("file://")), content)
        try:
            with _MEMORY if self.root.startswith("memory://") else nullcontext():
                self.fs.pipe_file(uri, content, mode="create")
        except FileExistsError:
            return False
        return True

    def manifest_uri(self, step: str, key: str) -> str:
        return self.path("manifests", step, f"{key}.json")

    def find(self, step: str, key: str) -> Manifest | None:
        uri = self.manifest_uri(step, key)
        content = self._read(uri)
        return None if content is None else _parsed(uri, content)

    def writer(self, step: str, key: str, output: str, attempt: str) -> OutputWriter:
        return OutputWriter(self.fs, self.path("data", step, f"{key}-{attempt}", output))

    def publish(self, manifest: Manifest) -> Manifest:
        """Commit. When another attempt with the same key came first, that one stands and is returned."""
        uri = self.manifest_uri(manifest.step, manifest.key)
        final = manifest.model_copy(update={"uri": uri})
        if self.create(uri, final.model_dump_json(indent=1).encode()):
            return final
        return self.manifest(uri)

    # -- pointers --------------------------------------------------------------------------------

    def pointer_version(self, name: str) -> int:
        """How often `name` was moved; 0 = never."""
        try:
            names = self.fs.ls(self.path("pointers", name), detail=False)
        except FileNotFoundError:
            return 0
        return max((int(stem) for stem in (Path(p).stem for p in names) if stem.isdigit()), default=0)

    def pointer_uri(self, name: str, version: int) -> str:
        return self.path("pointers", name, f"{version:08d}.json")

    def latest(self, name: str) -> Manifest | None:
        """The manifest that pointer `name` names, or None."""
        version = self.pointer_version(name)
        return self._at(name, version) if version else None

    def _at(self, name: str, version: int) -> Manifest:
        return self.manifest(self.read_bytes(self.pointer_uri(name, version)).decode())

    def history(self, name: str, most: int) -> Iterator[Manifest]:
        """What the newest `most` versions of a pointer name, newest first; those that are gone are left out."""
        last = self.pointer_version(name)
        for version in range(last, max(0, last - most), -1):
            uri = self.read_bytes(self.pointer_uri(name, version)).decode()
            if self.exists(uri):
                yield self.manifest(uri)

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
        if not self.create(self.pointer_uri(name, expected + 1), manifest_uri.encode()):
            raise PointerMoved(f"pointer '{name}' moved beyond version {expected}")
        return expected + 1

    def advance(self, name: str, make: Callable[[Manifest | None], Manifest]) -> Manifest:
        """Move `name` to `make(current)`, again after each lost race. No move when it names the same manifest."""
        while True:
            version = self.pointer_version(name)
            current = self._at(name, version) if version else None
            new = make(current)
            if current is not None and current.uri == new.uri:
                return current
            try:
                self.move(name, new.uri, version)
            except PointerMoved:
                continue
            return new


def _parsed(uri: str, content: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(content).model_copy(update={"uri": uri})
    except ValidationError as e:
        raise UserError(f"{uri} is not a manifest: {e.errors()[0]['msg']}", "give the URI of a manifest") from e


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
