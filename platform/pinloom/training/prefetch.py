"""Batches made ahead of time in a thread, with the position that a checkpoint needs and the time spent waiting."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Generic

from components.recipe import BatchSource, BatchT

_END = object()


class Prefetcher(Generic[BatchT]):
    """Iterates the rest of a source's epoch, at most `depth` batches ahead (0: in the caller's thread).

    The source has read ahead, so its own `state_dict` is not the position of training: `position` is, the state of
    the source right after the last batch handed out. A context manager: leaving it ends the thread.

    Attributes:
        waited: seconds that the consumer stood still for the last batch handed out.
    """

    def __init__(self, source: BatchSource[BatchT], depth: int, *, pin: bool = False) -> None:
        self._source = source
        self._depth = depth
        self._pin = pin
        self._ahead: queue.Queue[Any] = queue.Queue(maxsize=max(depth, 1))
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.position = source.state_dict()
        self.waited = 0.0

    def __enter__(self) -> Prefetcher[BatchT]:
        if self._depth > 0:
            self._thread = threading.Thread(target=self._fill, name="prefetch", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def __iter__(self) -> Iterator[BatchT]:
        produced: Iterator[Any] = self._produce() if self._thread is None else iter(self._ahead.get, _END)
        while True:
            began = time.perf_counter()
            item: Any = next(produced, _END)
            self.waited = time.perf_counter() - began
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            batch, self.position = item
            yield batch

    def _produce(self) -> Iterator[tuple[BatchT, dict[str, Any]]]:
        for batch in self._source:
            yield (batch.pin_memory() if self._pin else batch), self._source.state_dict()

    def _fill(self) -> None:
        try:
            for item in self._produce():
                if not self._put(item):
                    return
            self._put(_END)
        except BaseException as e:
            # Raised again in the thread that trains.
            self._put(e)

    def _put(self, item: Any) -> bool:
        """False when the consumer has left."""
        while not self._stopped.is_set():
            try:
                self._ahead.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
