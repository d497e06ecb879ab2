"""Many writers at once, and writers that die: one wins, nothing half-written is ever seen."""

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from threading import Event

import pytest

from pinloom.lake import Lake, Manifest
from tests.platform.lake.examples import NOW, published

LARGE = 1 << 20


def _claim(root: str, uri: str, who: int) -> bool:
    return Lake(root).create(uri, bytes([who]) * LARGE)


def _count(root: str, who: int, times: int) -> None:
    """Add `times` to a counter that lives in manifests, by compare-and-swap."""
    lake = Lake(root)
    for n in range(times):
        lake.advance("counter", lambda current, n=n: _next(lake, current, f"{who}-{n}"))


def _next(lake: Lake, current: Manifest | None, name: str) -> Manifest:
    names = [*(current.params["names"] if current else ()), name]
    key = f"{len(names)}-{name}"
    return lake.publish(Manifest(step="counter", version=1, key=key, created_at=NOW, params={"names": names}))


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_of_many_threads_that_create_a_file_one_wins_and_readers_see_it_whole(kind, tmp_path):
    lake = Lake({"file": f"file://{tmp_path}/lake", "memory": f"memory://{tmp_path}"}[kind])
    uri = lake.path("manifests", "step", "k.json")
    done = Event()
    torn = []

    def read() -> None:
        while not done.is_set():
            if lake.exists(uri):
                content = lake.read_bytes(uri)
                torn.extend([] if content == content[:1] * LARGE else [len(content)])

    with ThreadPoolExecutor(10) as pool:
        reader = pool.submit(read)
        won = list(pool.map(lambda who: _claim(lake.root, uri, who), range(8)))
        done.set()
        reader.result()
    assert won.count(True) == 1
    assert lake.read_bytes(uri) == bytes([won.index(True)]) * LARGE
    assert not torn


def test_no_addition_is_lost_among_threads_and_processes(local_lake):
    with get_context("spawn").Pool(2) as processes, ThreadPoolExecutor(4) as threads:
        others = processes.starmap_async(_count, [(local_lake.root, who, 10) for who in (10, 11)])
        list(threads.map(lambda who: _count(local_lake.root, who, 10), range(4)))
        others.get(timeout=60)
    final = local_lake.require("counter")
    assert sorted(final.params["names"]) == sorted(f"{who}-{n}" for who in (0, 1, 2, 3, 10, 11) for n in range(10))
    assert local_lake.pointer_version("counter") == 60


def _dies(code: str, *args: str) -> None:
    """Run `code` in a process of its own, which must be killed by itself."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *args], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_writer_killed_before_its_manifest_leaves_nothing_visible(local_lake):
    _dies(
        """
        import os, signal, sys
        from pinloom.lake import Lake
        lake = Lake(sys.argv[1])
        writer = lake.writer("step", "k", "rows", "dead")
        writer.bytes("whole.bin", b"x" * 100)
        with writer.open("half.bin") as f:
            f.write(b"x" * 100_000)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        local_lake.root,
    )
    assert local_lake.find("step", "k") is None
    again = published(local_lake, "step", "k", {"rows": {"": b"abc"}})
    assert local_lake.find("step", "k") == again


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_writer_killed_while_it_publishes_has_published_all_or_nothing(local_lake, moment):
    _dies(
        """
        import os, signal, sys
        from pinloom.lake import Lake
        from tests.platform.lake.examples import published
        link = os.link
        def die(*args):
            if sys.argv[2] == "after":
                link(*args)
            os.kill(os.getpid(), signal.SIGKILL)
        os.link = die
        published(Lake(sys.argv[1]), "step", "k", {"rows": {"": b"abc"}})
        """,
        local_lake.root,
        moment,
    )
    found = local_lake.find("step", "k")
    assert (found is not None) == (moment == "after")
    assert found is None or local_lake.read_bytes(found.output("rows").uris[0]) == b"abc"
    assert published(local_lake, "step", "k", {"rows": {"": b"abc"}}).output("rows").rows == 3


def test_a_pointer_whose_mover_was_killed_can_be_moved_by_others(local_lake):
    a = published(local_lake, "step", "a")
    folder = local_lake.local_path(local_lake.path("pointers", "table"))
    folder.mkdir(parents=True)
    (folder / ".00000001.json.dead").write_text("half a u")
    assert local_lake.latest("table") is None
    assert local_lake.advance("table", lambda _: a) == a
    assert sorted(os.listdir(folder)) == [".00000001.json.dead", "00000001.json"]
