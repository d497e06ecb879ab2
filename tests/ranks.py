"""Ranks as processes of this machine, for what two workers do together over gloo."""

import multiprocessing
from collections.abc import Callable
from typing import Any


def run_ranks(work: Callable[..., None], *args: Any, ranks: int = 2, timeout_s: float = 120) -> None:
    """`work(rank, *args)` in fresh processes, all at once; each must end well."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=(rank, *args)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout_s)
        assert process.exitcode == 0
