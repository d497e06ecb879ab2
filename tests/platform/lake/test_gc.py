"""What is reachable stays whole; what is not goes, manifests before their files."""

import json
import os
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinloom.lake import Lake, Manifest
from pinloom.lake.gc import sweep
from pinloom.registry import Registry
from pinloom.settings import Settings
from tests.platform.lake.examples import published

LATER = datetime.now(UTC) + timedelta(days=30)


def _chain(lake: Lake, *keys: str) -> list[Manifest]:
    made: list[Manifest] = []
    for key in keys:
        made.append(published(lake, "step", key, {"rows": {"": key.encode()}}, inputs=tuple(made[-1:])))
    return made


def _whole(lake: Lake, manifest: Manifest) -> bool:
    return lake.exists(manifest.uri) and all(lake.exists(f.uri) for o in manifest.outputs.values() for f in o.files)


def test_a_pointer_keeps_the_lineage_of_what_it_names(lake):
    a, b, c = _chain(lake, "a", "b", "c")
    (stray,) = _chain(lake, "stray")
    lake.advance("features", lambda _: b)
    done = sweep(lake, dry_run=False, now=LATER)
    assert all(_whole(lake, m) for m in (a, b))
    assert not any(lake.exists(u) for m in (c, stray) for u in (m.uri, *m.output("rows").uris))
    assert done == {"removed": 4, "bytes": done["bytes"], "kept_manifests": 2}


def test_a_dry_run_counts_and_removes_nothing(lake):
    made = _chain(lake, "a", "b")
    said = sweep(lake, dry_run=True, now=LATER)
    assert said["would_remove"] == 4
    assert all(_whole(lake, m) for m in made)


def test_young_files_stay_and_a_result_keeps_what_a_later_job_will_read(local_lake):
    (a,) = _chain(local_lake, "a")
    assert sweep(local_lake, dry_run=False)["removed"] == 0
    old = (datetime.now(UTC) - timedelta(days=9)).timestamp()
    for uri in (a.uri, *a.output("rows").uris):
        os.utime(local_lake.local_path(uri), (old, old))
    result = local_lake.path("results", "job.json")
    local_lake.create(result, json.dumps({"manifests": {"step": a.uri}}).encode())
    assert sweep(local_lake, dry_run=False)["removed"] == 0
    os.utime(local_lake.local_path(result), (old, old))
    assert sweep(local_lake, dry_run=False)["removed"] == 2


def test_two_versions_of_a_pointer_stay_to_go_back_to(lake):
    a, b, c = (_chain(lake, key)[0] for key in "abc")
    for m in (a, b, c):
        lake.advance("champions/x", lambda _, m=m: m)
    sweep(lake, dry_run=False, now=LATER)
    assert [_whole(lake, m) for m in (a, b, c)] == [False, True, True]


def test_a_registry_alias_keeps_its_version_and_its_lineage(lake):
    read, named = _chain(lake, "features", "named")
    (other,) = _chain(lake, "other")
    sweep(lake, dry_run=False, now=LATER, aliased=[named.uri])
    assert _whole(lake, named)
    assert _whole(lake, read)
    assert not lake.exists(other.uri)


def test_asking_for_aliases_makes_no_registry(tmp_path):
    assert Registry(Settings(home=tmp_path / "home", mlflow_uri=None), "shop").aliased() == []
    assert not (tmp_path / "home").exists()


def test_leftovers_of_a_killed_mover_are_no_pointer(local_lake):
    (a,) = _chain(local_lake, "a")
    local_lake.advance("table", lambda _: a)
    leftover = local_lake.local_path(local_lake.path("pointers", "table", ".00000002.json.dead"))
    leftover.write_text("file:///nowhere.json")
    assert sweep(local_lake, dry_run=False, now=LATER)["kept_manifests"] == 1
    assert _whole(local_lake, a)


GRAPHS = st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=7)


@given(GRAPHS, st.sets(st.integers(0, 6), max_size=3), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_whenever_it_stops_no_manifest_that_is_left_lacks_a_file(graph, pointed, survives):
    """Node n reads the earlier nodes of graph[n]; the sweep dies after `survives` removals, then runs again."""
    lake = Lake(f"memory://{uuid.uuid4().hex}")
    made: list[Manifest] = []
    for n, reads in enumerate(graph):
        inputs = tuple(made[i] for i in sorted(reads) if i < n)
        made.append(published(lake, "step", str(n), {"rows": {"": bytes([n])}}, inputs=inputs))
    named = [n for n in sorted(pointed) if n < len(made)]
    for n in named:
        lake.advance(f"p{n}", lambda _, n=n: made[n])
    alive = set(named)
    for n in reversed(range(len(made))):
        alive |= {i for i in graph[n] if i < n} if n in alive else set()

    with pytest.MonkeyPatch.context() as patch:
        remove, removed = lake.fs.rm_file, []

        def dying(path: str) -> None:
            if len(removed) >= survives:
                raise InterruptedError
            removed.append(path)
            remove(path)

        patch.setattr(lake.fs, "rm_file", dying)
        try:
            sweep(lake, dry_run=False, now=LATER)
        except InterruptedError:
            assert len(removed) == survives
    assert all(_whole(lake, m) for m in made if lake.exists(m.uri))
    sweep(lake, dry_run=False, now=LATER)
    assert {n for n, m in enumerate(made) if lake.exists(m.uri)} == alive
    assert all(_whole(lake, made[n]) for n in alive)
    assert sweep(lake, dry_run=False, now=LATER)["removed"] == 0
