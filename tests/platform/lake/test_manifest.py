"""A manifest's content hash is about data: where it lies and when it was written are no part of it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import UserError
from pinloom.lake import FileEntry, Manifest, Output
from pinloom.lake.manifest import digest

MANIFEST = Manifest(
    step="features",
    version=1,
    key="k",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    params={"bucket": 3},
    outputs={
        "rows": Output(
            files=(
                FileEntry(uri="s3://b/a.parquet", sha256="aa", bytes=3, rows=3, partition="d1"),
                FileEntry(uri="s3://b/b.parquet", sha256="bb", bytes=4, rows=4, partition="d2"),
            )
        )
    },
)


def _with_file(**change) -> Manifest:
    first, second = MANIFEST.output("rows").files
    return MANIFEST.model_copy(update={"outputs": {"rows": Output(files=(first.model_copy(update=change), second))}})


@pytest.mark.parametrize(
    "same",
    [
        MANIFEST.model_copy(update={"created_at": datetime(2027, 1, 1, tzinfo=UTC)}),
        MANIFEST.model_copy(update={"uri": "file:///elsewhere.json", "key": "other", "seconds": {"work": 9.0}}),
        _with_file(uri="file:///elsewhere/a.parquet"),
    ],
)
def test_the_same_data_elsewhere_or_later_has_the_same_hash(same):
    assert same.content_hash() == MANIFEST.content_hash()


@pytest.mark.parametrize(
    "other",
    [
        MANIFEST.model_copy(update={"version": 2}),
        MANIFEST.model_copy(update={"params": {"bucket": 4}}),
        MANIFEST.model_copy(update={"step": "train"}),
        _with_file(sha256="cc"),
        _with_file(partition="d0"),
    ],
)
def test_other_data_has_another_hash(other):
    assert other.content_hash() != MANIFEST.content_hash()


def test_a_manifest_survives_its_json():
    assert Manifest.model_validate_json(MANIFEST.model_dump_json()) == MANIFEST


def test_an_output_or_file_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(UserError, match=r"no output 'items' \(it has: rows\)"):
        MANIFEST.output("items")
    with pytest.raises(UserError, match=r"has no file 'c.parquet'"):
        MANIFEST.file("rows", "c.parquet")
    assert MANIFEST.file("rows", "b.parquet") == "s3://b/b.parquet"
    assert MANIFEST.output("rows").partition("d2") == ["s3://b/b.parquet"]
    assert MANIFEST.output("rows").rows == 7


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=5))
def test_a_digest_does_not_depend_on_the_order_of_names(value):
    assert digest(value) == digest(dict(reversed(value.items())))
