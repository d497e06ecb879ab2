"""The worked example of a mapped log, on the real files when they are there."""

import os
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from components.errors import UserError
from pinloom.datasets import load_dataset
from pinloom.datasets.source import open_source

FOLDER = os.environ.get("PINLOOM_KUAIRAND")
PUBLISHED = {
    "click": 100_900,
    "long_view": 70_963,
    "like": 3_915,
    "comment": 579,
    "follow": 304,
    "forward": 195,
    "hate": 190,
}


def test_without_the_folder_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("PINLOOM_KUAIRAND", raising=False)
    with pytest.raises(UserError, match="the environment variable PINLOOM_KUAIRAND is not set"):
        open_source(load_dataset("kuairand_pure"), 1.0).interval()


@pytest.mark.skipif(not FOLDER or not Path(FOLDER).is_dir(), reason="PINLOOM_KUAIRAND is not set")
def test_exposures_and_feedback_agree_with_the_published_counts():
    source = open_source(load_dataset("kuairand_pure"), 1.0)
    assert source.interval() == (date(2022, 4, 24), date(2022, 5, 9))
    actions = pl.concat([b["actions"] for b in source.batches(*source.interval())])
    counts = dict(actions["action"].value_counts().iter_rows())
    assert counts == {"impression": 228_329, **PUBLISHED}
    items = source.items()
    assert items.height == 7_583
    assert not items["created_at_inferred"].any()
    assert actions.join(items, on="item_id", how="anti").height == 0
    assert source.users().height == 27_285
