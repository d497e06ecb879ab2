"""The documented template is a data set, and leaves no key out."""

from pathlib import Path

import pytest
import yaml

from components.contract import ActionSpec, Contract, Splits
from pinloom.datasets import load_dataset
from pinloom.datasets.mapping import RatingRule, TableMapping, TimeSpec
from pinloom.datasets.spec import FeatureSpec, PromotionSpec, SourceSpec, ValidationSpec

DOCS = Path(__file__).parents[3] / "docs" / "datasets"


def test_the_template_is_a_valid_data_set():
    spec = load_dataset(str(DOCS / "template.yaml"))
    assert len(spec.source.tables["actions"]) == 2
    assert set(spec.source.tables) == {"actions", "items", "users", "boards", "requests"}


@pytest.mark.parametrize(
    "section",
    [
        ActionSpec,
        Contract,
        Splits,
        SourceSpec,
        TableMapping,
        TimeSpec,
        RatingRule,
        FeatureSpec,
        ValidationSpec,
        PromotionSpec,
    ],
)
def test_every_key_is_in_the_template(section):
    text = (DOCS / "template.yaml").read_text()
    assert [name for name in section.model_fields if f"{name}:" not in text] == []


def test_the_smallest_yaml_of_the_readme_works(tmp_path):
    text = (DOCS / "README.md").read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "smallest.yaml").write_text(text)
    spec = load_dataset(str(tmp_path / "smallest.yaml"))
    assert yaml.safe_load(text)["contract"]["name"] == spec.name == "clicks"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.csv").write_text("who,what,when\n007,i1,2024-01-09 10:00\n")
    from pinloom.datasets.source import open_source

    source = open_source(spec, 1.0)
    (batch,) = source.batches(*source.interval())
    assert batch["actions"].select("user_id", "item_id", "action").row(0) == ("007", "i1", "click")
