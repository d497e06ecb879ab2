"""A ranker fine-tuned from a base: evaluated on rows that both have not seen, promoted, its parent on record."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from components.errors import UserError
from components.evaluation.rows import Rows
from pinloom.evaluation import ablation, study
from pinloom.evaluation.rankers import learned
from pinloom.evaluation.scoring import open_schema
from pinloom.evaluation.study import fresh
from pinloom.steps import train as step
from pinloom.steps.base import StepContext
from tests.components.models.pinfm_ranker.conftest import write_base
from tests.platform.evaluation.lab import Lab, build
from tests.platform.serving import planted

ROWS = ("no PinFM", "Table 1: lite-last")
INT4 = "id table in int4"


@pytest.fixture(scope="module")
def tuned(lab: Lab, tmp_path_factory):
    planted.publish_base(lab.lake, tmp_path_factory.mktemp("tuned"))
    return lab.train("tuned", recipe="pinfm_ranker")


def test_a_run_without_a_base_says_what_is_missing(lab, tmp_path_factory):
    empty = build(tmp_path_factory.mktemp("without-a-base"))
    with pytest.raises(UserError, match="nothing is published as 'runs/pinfm'"):
        empty.step("train", {"recipe": "pinfm_ranker"})


def test_it_is_evaluated_with_its_ablations_and_promoted_by_the_same_gate(lab, tuned):
    params = {"recipe": "pinfm_ranker", "resamples": 20, "full_requests": 20, "ablations": ROWS}
    evaluated = lab.step("evaluate", params, train=tuned)
    assert set(evaluated.metrics["ablations"]) == {"pinfm_ranker", *ROWS}
    assert {"pinfm_ranker", "noseq"} <= set(evaluated.metrics["headline"])
    assert evaluated.inputs["base"]["uri"] == tuned.inputs["base"]["uri"]
    decided = lab.step("promote", {"recipe": "pinfm_ranker"}, evaluate=evaluated)
    named = lab.registry.alias("pinfm_ranker", "champion")
    assert decided.metrics["promoted"] == (named is not None and named[1] == tuned.uri)


def test_a_quantised_table_is_compared_without_training_again(lab, tuned, monkeypatch):
    monkeypatch.setattr(ablation, "run_local", lambda *_, **__: pytest.fail("trained again"))
    params = {"recipe": "pinfm_ranker", "resamples": 20, "full_requests": 0, "ablation": False, "ablations": (INT4,)}
    evaluated = lab.step("evaluate", params, train=tuned)
    exact, packed = (evaluated.metrics["ablations"][name]["hit@3"][0] for name in ("pinfm_ranker", INT4))
    assert packed == pytest.approx(exact, abs=0.2)


def test_where_the_subjects_own_table_is_quantised_another_is_trained(lab, tuned):
    packed = lab.train("packed", recipe="pinfm_ranker", epochs=1, table_bits=8)
    params = {"recipe": "pinfm_ranker", "resamples": 20, "full_requests": 0, "ablation": False, "ablations": (INT4,)}
    evaluated = lab.step("evaluate", params, train=packed)
    assert set(evaluated.metrics["ablations"]) == {"pinfm_ranker", INT4}


def test_variants_are_compared_on_young_and_on_new_items(lab, tuned, monkeypatch):
    young, new = "items younger than 7 days", "items nobody had chosen"
    monkeypatch.setattr(study, "fresh", lambda rows: {young: np.arange(len(rows)) % 2 == 0})
    monkeypatch.setattr(study, "unseen", lambda rows: {new: np.arange(len(rows)) % 2 == 1})
    params = {"recipe": "pinfm_ranker", "resamples": 21, "full_requests": 0, "ablation": False, "ablations": (INT4,)}
    evaluated = lab.step("evaluate", params, train=tuned)
    page = lab.lake.read_bytes(evaluated.file("report", "report.html")).decode()
    for part in (young, new):
        assert set(evaluated.metrics["ablation_slices"][part]) == {"pinfm_ranker", INT4}
        assert f'data-key="ablation_slices.{part}.{INT4}"' in page


def test_a_version_says_which_base_it_came_from(lab, tuned):
    base = lab.lake.manifest(tuned.inputs["base"]["uri"])
    parent = lab.registry.register("pinfm", base)
    context = StepContext(
        lake=lab.lake,
        settings=lab.settings,
        spec=lab.spec,
        declared=lab.spec,
        step="train",
        key=tuned.key,
        params=step.TrainParams(recipe="pinfm_ranker"),
        inputs={"features": lab.features, "base": base},
        now=tuned.created_at,
    )
    step.commit(context, tuned)
    version = lab.registry.version_of("pinfm_ranker", tuned)
    tags = lab.registry.client.get_model_version(lab.registry.model("pinfm_ranker"), version).tags
    assert tags["pinloom.base"] == f"planted-pinfm version {parent}, {base.uri}"
    assert "pinloom.features" not in tags


def test_what_the_base_has_seen_the_child_has_seen_too(lab, tuned, tmp_path):
    own = learned(lab.lake, tuned)
    later = int(own.last.timestamp() * 1e6) + 86_400_000_000
    writer = lab.lake.writer("train", "late-base", "artifact", "0")
    write_base(tmp_path / "base", tuple(lab.spec.contract.action_index), learned=(0, later))
    writer.upload(tmp_path / "base", name=".")
    base = lab.lake.manifest(tuned.inputs["base"]["uri"])
    late = lab.lake.publish(base.model_copy(update={"key": "late-base", "outputs": {"artifact": writer.output()}}))
    child = tuned.model_copy(update={"inputs": {**tuned.inputs, "base": lab.ref(late)}})
    assert learned(lab.lake, child).last.timestamp() * 1e6 == later
    assert learned(lab.lake, from_nothing(tuned)).last == own.last


def from_nothing(train):
    """The same run as if it had begun from nothing."""
    return train.model_copy(update={"inputs": {k: v for k, v in train.inputs.items() if k != "base"}})


def test_fresh_items_are_those_whose_first_moment_is_days_ago(lab):
    files = [lab.lake.local_path(u) for u in lab.features.output("examples").partition("test")]
    rows = Rows.read(files, open_schema(lab.lake, lab.features))
    assert not any(mask.any() for mask in fresh(rows).values())
    age = np.resize([0.0, 6.9, 7.0, 27.0, 28.0, 400.0], len(rows))
    numeric = rows.numeric.copy()
    numeric[:, rows.schema.candidate_numeric.index("log_age_days")] = np.log1p(1 + age)
    numeric[::9, rows.schema.candidate_numeric.index("log_age_days")] = 0
    begin = rows.offsets[:-1] * numeric.shape[1]
    cut = [numeric.ravel()[a:b] for a, b in zip(begin, [*begin[1:], numeric.size], strict=True)]
    column = pl.Series("candidate_numeric", cut, dtype=pl.List(pl.Float32))
    aged = replace(rows, requests=rows.requests.with_columns(column))
    known = np.arange(len(rows)) % 9 != 0
    for days in (7, 28):
        assert fresh(aged)[f"items younger than {days} days"].tolist() == ((age < days) & known).tolist()
