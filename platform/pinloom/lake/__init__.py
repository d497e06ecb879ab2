"""Where data lies: immutable files, manifests as the only commit, pointers moved by compare-and-swap."""

from pinloom.lake.lake import Lake, PointerMoved
from pinloom.lake.manifest import FileEntry, Manifest, Output
from pinloom.lake.writer import OutputWriter

__all__ = ["FileEntry", "Lake", "Manifest", "Output", "OutputWriter", "PointerMoved"]
