"""Finding and scanning the files of a mapping."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import fsspec
import polars as pl
import xxhash

from components.errors import UserError
from pinloom.datasets.mapping import TableMapping
from pinloom.lake.manifest import digest

ROW = "__row"
"""Name of the column of row numbers, from 0 within a file."""

VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
KINDS = (".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz")


@dataclass(frozen=True)
class LogFile:
    """One file of a log.

    Attributes:
        name: path relative to the root: its place in the source, whatever machine the root lies on.
        field: of the YAML, for messages (`source.tables.actions`).
    """

    uri: str
    name: str
    field: str
    mapping: TableMapping

    @cached_property
    def prefix(self) -> str:
        """First part of the event ids of this file's rows: a hash of its place in the source."""
        return xxhash.xxh64_hexdigest(self.name.encode())

    def scan(self) -> pl.LazyFrame:
        """Its rows with their numbers. Every column of a CSV is text: types come from the mapping."""
        if self.name.endswith(".parquet"):
            return pl.scan_parquet(self.uri, row_index_name=ROW)
        separator = self.mapping.separator or ("\t" if ".tsv" in self.name else ",")
        header = list(self.mapping.header)
        return pl.scan_csv(
            self.uri,
            separator=separator,
            has_header=not header,
            new_columns=header or None,
            infer_schema=False,
            row_index_name=ROW,
        )

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Source column → dtype.

        Raises:
            UserError: the file cannot be read as what its ending says, or `header` has another number of names.
        """
        with readable(self):
            schema = dict(self.scan().collect_schema())
        return {c: t for c, t in schema.items() if c != ROW}

    def require(self, column: str, field: str, expected: str) -> pl.DataType:
        """Dtype of a source column that the mapping names.

        Raises:
            UserError: there is no such column.
        """
        if column not in self.schema:
            raise UserError(
                f"{self.field}.{field}: {self.uri} has no column '{column}' (expected: {expected})",
                f"columns that there are: {', '.join(self.schema)}",
            )
        return self.schema[column]


@contextmanager
def readable(file: LogFile) -> Iterator[None]:
    """While rows of `file` are read.

    Raises:
        UserError: its content is not what its ending says.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as e:
        kind = "Parquet" if file.name.endswith(".parquet") else "CSV in UTF-8, each line of as many cells"
        remedy = f"check the file, {file.field}.files; lines with too many cells: quote those that hold the separator"
        raise UserError(f"{file.uri} cannot be read as {kind}: {e}", remedy) from e


def expand(root: str, field: str = "source.root") -> str:
    """`root` with `${NAME}` and `${NAME:-default}` filled in.

    Raises:
        UserError: a variable without default is not set.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], match[2])
        if not found:
            raise UserError(
                f"{field} is '{root}', but the environment variable {match[1]} is not set",
                f"export {match[1]}=<folder of the files>, or write the folder into the YAML",
            )
        return found

    return VARIABLE.sub(value, root)


@dataclass(frozen=True)
class Files:
    """The folder of a log: a local path (relative to the YAML) or any URL that fsspec and Polars both read."""

    root: str
    yaml: str

    @cached_property
    def folder(self) -> str:
        root = expand(self.root)
        if "://" in root:
            return root.rstrip("/")
        return str((Path(self.yaml).parent / Path(root).expanduser()).resolve())

    @cached_property
    def fs(self) -> fsspec.AbstractFileSystem:
        return fsspec.core.url_to_fs(self.folder)[0]

    def of(self, mapping: TableMapping, field: str) -> list[LogFile]:
        """The files that a mapping's glob matches, by name.

        Raises:
            UserError: none, or one of an unknown kind.
        """
        found = sorted(self.fs.glob(f"{self.folder}/{mapping.files}"))
        if not found:
            raise UserError(
                f"{field}.files: '{mapping.files}' matches nothing in {self.folder}", f"there is: {self._listing()}"
            )
        bare = self.fs._strip_protocol(self.folder).rstrip("/")
        files = [LogFile(self._uri(p), p.removeprefix(f"{bare}/"), field, mapping) for p in found]
        for file in files:
            if not file.name.endswith(KINDS):
                raise UserError(f"{field}.files: {file.uri} is of no known kind", f"files end with {', '.join(KINDS)}")
        return files

    def fingerprint(self, files: list[LogFile]) -> str:
        """Of names, sizes and entity tags or modification times."""
        said = []
        for file in files:
            info = self.fs.info(file.uri)
            changed = info.get("ETag") or info.get("mtime") or info.get("LastModified")
            said.append((file.name, info.get("size"), str(changed)))
        return digest(sorted(said))

    def _uri(self, path: str) -> str:
        return str(self.fs.unstrip_protocol(path)) if "://" in self.folder else path

    def _listing(self) -> str:
        if not self.fs.isdir(self.folder):
            return "no such folder"
        names = sorted(p.rsplit("/", 1)[-1] for p in self.fs.ls(self.folder, detail=False))
        return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "an empty folder"
