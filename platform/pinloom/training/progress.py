"""A bar for people: in place on a terminal, as lines in a job's log."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger("pinloom.training")


class Progress:
    """Shows the points of a curve: each on a terminal, else one line every `every_s` and one for each validation."""

    def __init__(self, name: str, every_s: float) -> None:
        self.name = name
        self.every_s = every_s
        self._began = time.monotonic()
        self._shown = -every_s
        self._initial: int | None = None
        self._bar = tqdm(desc=name, unit="step") if sys.stderr.isatty() else None

    def show(self, point: dict[str, float], total_steps: int) -> None:
        step = int(point["step"])
        numbers = "".join(f", {k}={v:.4g}" for k, v in point.items() if k not in ("step", "epoch"))
        text = f"epoch={point['epoch']:.0f}{numbers}"
        if self._bar is not None:
            self._bar.total = total_steps
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        if self._initial is None:
            self._initial, self._began = step, time.monotonic()
        elapsed = time.monotonic() - self._began
        if "validation/" in numbers or elapsed - self._shown >= self.every_s:
            self._shown = elapsed
            meter = tqdm.format_meter(
                step, total_steps, elapsed, ncols=60, prefix=self.name, unit="step", initial=self._initial
            )
            log.info("%s %s", meter, text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
