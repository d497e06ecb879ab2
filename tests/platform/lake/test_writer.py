"""Files are hashed while they are written, and only what was finished is entered."""

import hashlib
import uuid

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinloom.lake import Lake


def test_an_entry_says_what_the_file_holds(lake):
    writer = lake.writer("step", "k", "rows", "a1")
    writer.parquet("2017-03-01.parquet", pl.DataFrame({"x": [1, 2, 3]}), partition="2017-03-01")
    (entry,) = writer.output().files
    content = lake.read_bytes(entry.uri)
    assert entry.sha256 == hashlib.sha256(content).hexdigest()
    assert (entry.bytes, entry.rows, entry.partition) == (len(content), 3, "2017-03-01")
    assert pl.read_parquet(lake.local_path(entry.uri))["x"].to_list() == [1, 2, 3]


@given(st.lists(st.binary(max_size=50), max_size=8))
@settings(max_examples=30, deadline=None)
def test_the_hash_does_not_depend_on_how_the_bytes_came_in(chunks):
    lake = Lake(f"memory://{uuid.uuid4().hex}")
    writer = lake.writer("step", "k", "rows", "a1")
    with writer.open("file") as f:
        for chunk in chunks:
            f.write(chunk)
    assert writer.output().files[0].sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()


def test_a_file_that_failed_half_way_is_not_entered(lake):
    writer = lake.writer("step", "k", "rows", "a1")

    def fail() -> None:
        with writer.open("half") as f:
            f.write(b"some")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert writer.output().files == ()


def test_a_folder_is_uploaded_with_its_tree(lake, tmp_path):
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "docs" / "index.html").write_text("top")
    (tmp_path / "docs" / "deep" / "page.html").write_text("below")
    writer = lake.writer("step", "k", "report", "a1")
    writer.upload(tmp_path / "docs")
    uris = writer.output().uris
    assert [u.rsplit("/report/", 1)[1] for u in uris] == ["docs/deep/page.html", "docs/index.html"]
    assert lake.read_bytes(uris[0]) == b"below"


def test_attempts_at_the_same_key_never_touch_each_others_files(lake):
    uris = set()
    for attempt in ("a1", "a2"):
        writer = lake.writer("step", "k", "rows", attempt)
        writer.bytes("file", attempt.encode())
        uris |= set(writer.output().uris)
    assert {lake.read_bytes(u) for u in uris} == {b"a1", b"a2"}
