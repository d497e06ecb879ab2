"""How benchmarks time rivals on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def best_seconds(
    runs: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """The best of `rounds`, taken in turns after one unmeasured: whatever else the machine does only slows one down."""
    for run in runs.values():
        run()
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            began = clock()
            run()
            best[name] = min(best[name], clock() - began)
    return best
