"""A process with all its descendants, ended together."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil


class ProcessTree:
    """A running command, its output in `log`; `stop_all` ends it with its descendants, whatever group they are in."""

    def __init__(self, command: list[str], *, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                env=dict(env),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def tail(self, characters: int = 2000) -> str:
        return self.log.read_text(errors="replace")[-characters:]

    def descendants(self) -> list[psutil.Process]:
        """Of all generations; none when the process has ended."""
        try:
            return list(psutil.Process(self.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout_s: float) -> None:
        """Until the process has ended; SIGKILL after `timeout_s`."""
        try:
            self._process.wait(max(timeout_s, 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def stop_all(trees: list[ProcessTree], timeout_s: float) -> None:
    """SIGTERM to each command, SIGKILL to what is left of it and of its descendants after `timeout_s` in all."""
    descendants = [process for tree in trees for process in tree.descendants()]
    for tree in trees:
        tree.terminate()
    deadline = time.monotonic() + timeout_s
    for tree in trees:
        tree.wait(deadline - time.monotonic())
    for process in descendants:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    while any(_lives(process) for process in descendants):
        time.sleep(0.02)


def _lives(process: psutil.Process) -> bool:
    """A killed orphan may stay a zombie for as long as init takes its time."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
