"""A job's log, line by line as it grows, and what to tell of it when the job failed."""

from __future__ import annotations

import time
from collections.abc import Callable

USER_ERROR = "pinloom: "
"""How the CLI begins the line of an error that the user can mend."""
TAIL_LINES = 20


class LogFollower:
    """Emits each line once. The APIs give the whole log each time, so reading is held to a tenth of the time."""

    def __init__(self, read: Callable[[], str], emit: Callable[[str], None]) -> None:
        self._read, self._emit = read, emit
        self._seen = 0
        self._next_read = 0.0
        self.text = ""

    def follow(self) -> None:
        """Emit the lines that were completed since."""
        if time.monotonic() >= self._next_read:
            self._fetch()
            self._emit_lines(self.text.rfind("\n") + 1)

    def finish(self) -> None:
        """Emit all that is left, also a last line without an end."""
        self._fetch()
        self._emit_lines(len(self.text))

    def _fetch(self) -> None:
        began = time.monotonic()
        self.text = self._read()
        ended = time.monotonic()
        self._next_read = ended + 9 * (ended - began)

    def _emit_lines(self, end: int) -> None:
        for line in self.text[self._seen : end].splitlines():
            if line.strip():
                self._emit(line.rstrip())
        self._seen = max(self._seen, end)


def failure_text(text: str) -> str:
    """The user's error with its remedy when the log ends with one, else its last lines."""
    start = text.rfind("\n" + USER_ERROR) + 1 if not text.startswith(USER_ERROR) else 0
    if text[start:].startswith(USER_ERROR):
        return text[start + len(USER_ERROR) :].strip()
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])
