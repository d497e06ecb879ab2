"""Where Ray Train keeps the checkpoints of runs that are under way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fsspec

from pinloom.lake import Lake
from pinloom.settings import Settings


@dataclass(frozen=True)
class Storage:
    """A folder that driver and workers reach.

    Attributes:
        path: for Ray Train; without a scheme when `filesystem` is given.
        filesystem: pyarrow file system of an object store; None = local disk.
    """

    path: str
    filesystem: Any = None

    @classmethod
    def beside(cls, lake: Lake, settings: Settings) -> Storage:
        """`<home>/ray_results` on a laptop; the lake's own store when that is shared, since workers may be anywhere."""
        if lake.is_local:
            return cls(str(settings.home.resolve() / "ray_results"))
        import pyarrow.fs

        handler = pyarrow.fs.FSSpecHandler(lake.fs)
        return cls(str(lake.fs._strip_protocol(lake.path("ray_results"))), pyarrow.fs.PyFileSystem(handler))

    def remove(self, name: str) -> None:
        """Delete a run's checkpoints; nothing when there are none."""
        fs = self.filesystem.handler.fs if self.filesystem is not None else fsspec.filesystem("file")
        if fs.exists(f"{self.path}/{name}"):
            fs.rm(f"{self.path}/{name}", recursive=True)
