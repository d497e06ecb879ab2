"""Several steps in one process: each publishes, the later read what the earlier wrote."""

import json
import sys
import types

import pytest

from components.errors import UserError
from pinloom.lake import Lake
from pinloom.settings import Settings
from pinloom.steps.base import MODULES, Params, Step
from pinloom.steps.job import run_job


class Count(Params):
    count: int = 1


class Factor(Params):
    factor: int = 2


def _grow(ctx) -> None:
    rows = ctx.params.factor * ctx.input("sow").output("seeds").rows
    ctx.output("plants").bytes("plants.bin", bytes(rows), rows=rows)


SOW = Step("sow", 1, lambda ctx: ctx.output("seeds").bytes("s", b"s", rows=ctx.params.count), Count, advances="seeds")
GROW = Step("grow", 1, _grow, Factor, inputs={"sow": "seeds"})


@pytest.fixture(autouse=True)
def garden(monkeypatch):
    for name, step in {"sow": SOW, "grow": GROW}.items():
        module = types.ModuleType(f"garden_{name}")
        module.STEP = step
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(MODULES, name, module.__name__)


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(home=tmp_path, lake=None, dataset="completejourney")


@pytest.fixture
def lake(settings) -> Lake:
    return Lake(f"{settings.lake_root}/completejourney")


def test_a_later_step_reads_what_an_earlier_one_published(settings, lake):
    done = run_job(["sow", "grow"], params={"count": 3, "factor": 5}, settings=settings)
    assert list(done["manifests"]) == ["sow", "grow"]
    assert lake.manifest(done["manifests"]["grow"]).output("plants").rows == 15
    assert set(done["seconds"]) == {"startup", "sow", "grow"}


def test_a_step_that_stands_for_another_is_read_in_its_place(settings, lake, tmp_path, monkeypatch):
    better = Step("graft", 1, SOW.run, Count, inputs={"sow": "seeds"}, advances="grafts", stands_for="sow")
    module = types.ModuleType("garden_graft")
    module.STEP = better
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(MODULES, "graft", module.__name__)
    run_job(["sow"], params={"count": 2}, settings=settings)
    result = f"file://{tmp_path}/results/grafted.json"
    done = run_job(["graft", "grow"], params={"count": 7, "factor": 1}, settings=settings, result_uri=result)
    assert lake.manifest(done["manifests"]["grow"]).output("plants").rows == 7
    assert lake.latest("seeds").output("seeds").rows == 2
    later = run_job(["grow"], params={"factor": 3}, settings=settings, inputs_from=[result])
    assert lake.manifest(later["manifests"]["grow"]).output("plants").rows == 21


def test_inputs_may_depend_on_the_parameters(settings, lake, monkeypatch):
    def wanted(params: Factor) -> dict[str, str]:
        return {"sow": "seeds"} if params.factor > 1 else {"sow": "nothing|seeds", "water": "water?"}

    monkeypatch.setattr(sys.modules["garden_grow"], "STEP", Step("grow", 1, _grow, Factor, inputs=wanted))
    run_job(["sow"], settings=settings)
    assert lake.manifest(
        run_job(["grow"], params={"factor": 1}, settings=settings)["manifests"]["grow"]
    ).inputs.keys() == {"sow"}
    with pytest.raises(UserError, match="takes the input water"):
        run_job(["grow"], params={"factor": 2}, inputs={"water": "file:///w.json"}, settings=settings)


def test_inputs_come_given_first_then_of_earlier_jobs_then_by_pointer(settings, lake, tmp_path):
    uris = {n: run_job(["sow"], params={"count": n}, settings=settings)["manifests"]["sow"] for n in (1, 2, 3)}
    result = f"file://{tmp_path}/results/earlier.json"
    run_job(["sow"], params={"count": 2}, settings=settings, result_uri=result)
    run_job(["sow"], params={"count": 3}, settings=settings)

    def plants(**kwargs) -> int:
        done = run_job(["grow"], params={"factor": 1}, settings=settings, **kwargs)
        return lake.manifest(done["manifests"]["grow"]).output("plants").rows

    assert plants() == 3
    assert plants(inputs_from=[result]) == 2
    assert plants(inputs_from=[result], inputs={"sow": uris[1]}) == 1


@pytest.mark.parametrize("where", ["{}/deep/result.json", "file://{}/deep/result.json"])
def test_the_result_is_written_where_it_is_asked_for(settings, tmp_path, where):
    done = run_job(["sow"], settings=settings, result_uri=where.format(tmp_path))
    assert json.loads((tmp_path / "deep" / "result.json").read_text()) == done


def test_a_job_that_fails_half_way_writes_no_result_but_keeps_what_it_published(settings, lake, tmp_path, monkeypatch):
    monkeypatch.setitem(GROW.inputs, "rain", "clouds")
    with pytest.raises(UserError, match="nothing is published as 'clouds'"):
        run_job(["sow", "grow"], settings=settings, result_uri=f"file://{tmp_path}/result.json")
    assert not (tmp_path / "result.json").exists()
    assert lake.require("seeds").output("seeds").rows == 1


@pytest.mark.parametrize(
    ("wrong", "says", "remedy"),
    [
        ({"params": {"height": 1}}, "no step of 'sow grow' takes the parameter height", "count, factor"),
        ({"inputs": {"soil": "file:///x"}}, "no step of 'sow grow' takes the input soil", "sow"),
        ({"inputs": {"sow": "file:///nowhere.json"}}, "file:///nowhere.json does not exist", "check the URI"),
        ({"inputs_from": ["file:///nowhere.json"]}, "file:///nowhere.json does not exist", "check the URI"),
    ],
)
def test_what_is_wrong_is_named_before_any_step_runs(settings, lake, wrong, says, remedy):
    with pytest.raises(UserError, match=says) as e:
        run_job(["sow", "grow"], settings=settings, **wrong)
    assert remedy in e.value.remedy
    assert lake.latest("seeds") is None


@pytest.mark.parametrize("how", ["inputs", "inputs_from"])
def test_a_manifest_of_another_data_sets_lake_is_refused(settings, lake, tmp_path, how):
    result = f"file://{tmp_path}/results/other.json"
    made = run_job(["sow"], dataset="kuairand_pure", settings=settings, result_uri=result)["manifests"]["sow"]
    given = {"inputs": {"sow": made}, "inputs_from": [result]}[how]
    with pytest.raises(UserError, match="is not in this data set's lake") as e:
        run_job(["grow"], settings=settings, **{how: given})
    assert made in e.value.problem
    assert lake.root in e.value.problem
    assert run_job(["grow"], dataset="kuairand_pure", settings=settings, **{how: given})["manifests"]["grow"]


@pytest.mark.parametrize("text", ["no json", "[]", '{"manifest": {}}'])
def test_a_file_that_is_no_result_is_named(settings, tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(UserError, match=r"other.json is not the result of a job"):
        run_job(["grow"], settings=settings, inputs_from=[f"file://{tmp_path}/other.json"])
