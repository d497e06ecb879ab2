"""A manifest: what one unit of work read, wrote and measured. Publishing it is the commit."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from components.errors import UserError


class FileEntry(BaseModel):
    """One file of an output.

    Attributes:
        partition: day (`2017-03-01`), bucket or shard that the file belongs to; '' when the output has none.
    """

    model_config = ConfigDict(frozen=True)
    uri: str
    sha256: str
    bytes: int
    rows: int | None = None
    partition: str = ""


class Output(BaseModel):
    model_config = ConfigDict(frozen=True)
    files: tuple[FileEntry, ...] = ()

    @property
    def rows(self) -> int:
        return sum(f.rows or 0 for f in self.files)

    @property
    def uris(self) -> list[str]:
        return [f.uri for f in self.files]

    def partition(self, name: str) -> list[str]:
        """URIs of the files of one partition."""
        return [f.uri for f in self.files if f.partition == name]

    def partitions(self) -> list[str]:
        return sorted({f.partition for f in self.files})


class Manifest(BaseModel):
    """The record of one step: its key is a no-op when run again.

    Attributes:
        inputs: name → {"uri": manifest URI, "sha256": its content hash}.
        metrics: plain numbers and strings worth reading without opening a file.
        seconds: {"work": …} wall time.
    """

    model_config = ConfigDict(frozen=True)
    step: str
    version: int
    key: str
    uri: str = ""
    created_at: datetime
    code_version: str = ""
    inputs: dict[str, dict[str, str]] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[str, Output] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)

    def output(self, name: str) -> Output:
        if name not in self.outputs:
            raise UserError(
                f"{self.uri or self.step} has no output '{name}' (it has: {', '.join(self.outputs) or 'none'})",
                f"run `pinloom step {self.step}` again with this version of the code",
            )
        return self.outputs[name]

    def file(self, output: str, name: str) -> str:
        """URI of the file of `output` whose last path part is `name`."""
        for uri in self.output(output).uris:
            if uri.rsplit("/", 1)[-1] == name:
                return uri
        raise UserError(
            f"{self.uri}: output '{output}' has no file '{name}'", "rebuild it with this version of the code"
        )

    def content_hash(self) -> str:
        """Hash of what it says about data: two runs that wrote the same bytes are the same input."""
        said = {
            "step": self.step,
            "version": self.version,
            "params": self.params,
            "outputs": {k: [(f.sha256, f.partition) for f in v.files] for k, v in sorted(self.outputs.items())},
        }
        return digest(said)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, 32 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
