"""The loop in this process, without Ray: tests, benchmarks and tiny runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.recipe import Rank, Recipe
from pinloom.training.loop import Loop, LoopOptions
from pinloom.training.state import RunState

Tell = Callable[[dict[str, float], int], None]


class LocalHost:
    """Keeps the newest checkpoint in `folder`."""

    def __init__(self, folder: Path, tell: Tell | None = None) -> None:
        self.folder = folder
        self._tell = tell

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        kept = self.folder / "checkpoint"
        yield kept if kept.exists() else None

    def keep(self, folder: Path, run: RunState) -> None:
        fresh, kept = self.folder / "fresh", self.folder / "checkpoint"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(folder, fresh)
        shutil.rmtree(kept, ignore_errors=True)
        fresh.rename(kept)

    def tell(self, point: dict[str, float], total_steps: int) -> None:
        if self._tell is not None:
            self._tell(point, total_steps)


def run_local(
    recipe: Recipe[Any],
    folder: Path,
    options: LoopOptions | None = None,
    *,
    rank: Rank | None = None,
    tell: Tell | None = None,
) -> RunState:
    """Train `recipe`; resumes from what an earlier call left in `folder`.

    The artifact is then in `folder/checkpoint/artifact`.
    """
    return Loop(recipe, rank or Rank(), options or LoopOptions(), LocalHost(folder, tell)).run()
