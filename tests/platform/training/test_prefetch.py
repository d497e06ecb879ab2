"""Prefetching is bounded, knows where training stands, hides no error and leaves no thread."""

import threading
import time
from collections.abc import Iterator
from statistics import median

import pytest

from components.recipe import BatchSource
from pinloom.training.prefetch import Prefetcher


class Numbers(BatchSource[int]):
    def __init__(self, stop: int, breaks_at: int | None = None, seconds: float = 0.0) -> None:
        self.next, self.stop, self.breaks_at, self.seconds = 0, stop, breaks_at, seconds

    def __iter__(self) -> Iterator[int]:
        while self.next < self.stop:
            if self.next == self.breaks_at:
                raise OSError("the file ends early")
            time.sleep(self.seconds)
            self.next += 1
            yield self.next - 1

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]

    def set_epoch(self, epoch):
        self.next = 0

    @property
    def batches_per_epoch(self):
        return self.stop


def _prefetch_threads():
    return [t for t in threading.enumerate() if t.name == "prefetch"]


@pytest.mark.parametrize("depth", [0, 1, 5, 100])
def test_the_position_is_that_of_the_last_batch_handed_out_however_far_it_read_ahead(depth):
    source = Numbers(20)
    with Prefetcher(source, depth) as batches:
        assert batches.position == {"next": 0}
        for number in batches:
            assert batches.position == {"next": number + 1}
    assert number == 19


def test_it_reads_no_further_ahead_than_it_may():
    source = Numbers(1000)
    with Prefetcher(source, 3) as batches:
        for number in batches:
            # In the queue, in the producer's hands, and the one just handed out.
            assert source.next <= number + 3 + 2
            if number == 50:
                break


@pytest.mark.parametrize("depth", [0, 3])
def test_an_error_of_the_source_reaches_the_trainer_after_the_batches_before_it(depth):
    seen = []
    with pytest.raises(OSError, match="ends early"), Prefetcher(Numbers(10, breaks_at=4), depth) as batches:
        seen.extend(batches)
    assert seen == [0, 1, 2, 3]
    assert not _prefetch_threads()


def test_leaving_early_ends_the_thread():
    with Prefetcher(Numbers(10**9), 2) as batches:
        next(iter(batches))
        assert len(_prefetch_threads()) == 1
    assert not _prefetch_threads()


def test_a_slow_source_shows_as_waiting_and_one_read_ahead_does_not():
    with Prefetcher(Numbers(5, seconds=0.05), 2) as batches:
        slow = median(batches.waited for _ in batches)
    source = Numbers(5)
    with Prefetcher(source, 8) as batches:
        deadline = time.monotonic() + 30
        while source.next < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        ahead = median(batches.waited for _ in batches)
    assert slow > 0.02
    assert ahead < slow / 2
