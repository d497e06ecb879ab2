"""A step runs once for what it reads; its effects are brought about every time."""

from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import pytest

from components.contract import Splits
from components.errors import UserError
from pinloom.lake import Lake, Manifest
from pinloom.settings import Settings
from pinloom.steps.base import MODULES, Params, Step, StepContext, load_step, run_step
from tests.platform.lake.examples import published
from tests.platform.validation.shop import spec


class Size(Params):
    size: int = 1
    colour: str = "red"


@dataclass
class Trace:
    """What a step's functions saw."""

    runs: list[StepContext] = field(default_factory=list)
    commits: list[tuple[StepContext, Manifest]] = field(default_factory=list)


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(f"file://{tmp_path}/lake")


@pytest.fixture
def trace() -> Trace:
    return Trace()


@pytest.fixture
def step(trace) -> Step:
    def run(ctx: StepContext) -> None:
        trace.runs.append(ctx)
        ctx.output("rows").bytes("rows.bin", bytes(ctx.params.size), rows=ctx.params.size)
        ctx.metrics["size"] = ctx.params.size

    return Step(
        name="weigh",
        version=1,
        run=run,
        params=Size,
        inputs={"source": "sources/{colour}", "extra": "extra?"},
        advances="weights/{colour}",
        reads=("contract.buckets",),
        commit=lambda ctx, manifest: trace.commits.append((ctx, manifest)),
    )


def _run(step: Step, lake: Lake, declared=None, **kwargs) -> Manifest:
    return run_step(step, lake=lake, settings=Settings(), spec=declared or spec(), **kwargs)


def _source(lake: Lake, content: bytes = b"abc", colour: str = "red") -> Manifest:
    made = published(lake, "source", content.hex(), {"rows": {"": content}})
    lake.advance(f"sources/{colour}", lambda _: made)
    return made


def test_run_again_it_is_no_work_but_its_effects_are_brought_about(step, lake, trace):
    _source(lake)
    first = _run(step, lake)
    lake.fs.rm(lake.path("pointers", "weights"), recursive=True)
    second = _run(step, lake)
    assert second == first
    assert len(trace.runs) == 1
    assert [m for _, m in trace.commits] == [first, first]
    assert lake.require("weights/red") == first


def test_the_manifest_says_what_was_read_written_and_measured(step, lake):
    source = _source(lake)
    manifest = _run(step, lake, params={"size": 3})
    assert manifest.inputs == {"source": {"uri": source.uri, "sha256": source.content_hash()}}
    assert manifest.params == {"size": 3, "colour": "red"}
    assert manifest.metrics == {"size": 3}
    assert manifest.output("rows").rows == 3
    assert manifest.code_version
    assert lake.manifest(manifest.uri) == manifest


def _other_content(step, lake):
    _source(lake, b"xyz")
    return _run(step, lake)


CHANGES = {
    "version": lambda step, lake: _run(replace(step, version=2), lake),
    "name": lambda step, lake: _run(replace(step, name="measure"), lake),
    "parameter": lambda step, lake: _run(step, lake, params={"size": 2}),
    "content of an input": _other_content,
    "an optional input": lambda step, lake: _run(step, lake, inputs={"extra": published(lake, "extra", "e")}),
    "what it reads of the declaration": lambda step, lake: _run(step, lake, _with(buckets=8)),
}


def _with(**contract):
    return spec().model_copy(update={"contract": spec().contract.model_copy(update=contract)})


@pytest.mark.parametrize("change", CHANGES)
def test_the_key_changes_with(change, step, lake, trace):
    _source(lake)
    first = _run(step, lake)
    second = CHANGES[change](step, lake)
    assert second.key != first.key
    assert len(trace.runs) == 2


def test_the_key_stays_when_only_the_place_of_an_input_or_another_declaration_changes(step, lake, trace):
    _source(lake)
    first = _run(step, lake)
    moved = published(lake, "source", "elsewhere", {"rows": {"": b"abc"}})
    assert moved.uri != first.inputs["source"]["uri"]
    assert _run(step, lake, inputs={"source": moved}).key == first.key
    assert _run(step, lake, _with(session_gap_minutes=5.0)).key == first.key
    assert len(trace.runs) == 1


def test_a_step_that_reads_features_sees_the_splits_of_their_snapshot(step, lake, trace):
    contract = spec().contract.model_copy(update={"splits": Splits(burn_in=date(2026, 1, 5), validation=14, test=7)})
    features = _source(lake).model_copy(update={"metrics": {"as_of": "2026-03-01"}})
    rolling = spec().model_copy(update={"contract": contract})
    _run(replace(step, inputs={"features": "features"}), lake, rolling, inputs={"features": features})
    ctx, later = trace.runs[0], features.model_copy(update={"metrics": {"as_of": "2026-03-15"}})
    assert ctx.spec.contract.splits == contract.splits.as_of(date(2026, 3, 1))
    assert ctx.spec_of(later).contract.splits == contract.splits.as_of(date(2026, 3, 15))


def test_a_given_manifest_comes_before_the_pointer(step, lake, trace):
    _source(lake, b"named")
    given = published(lake, "source", "given", {"rows": {"": b"given"}})
    _run(step, lake, inputs={"source": given})
    assert trace.runs[0].input("source") == given
    assert "extra" not in trace.runs[0].inputs


def test_parameters_in_braces_name_the_pointers(step, lake):
    blue = _source(lake, b"blue", "blue")
    manifest = _run(step, lake, params={"colour": "blue"})
    assert manifest.inputs["source"]["uri"] == blue.uri
    assert lake.require("weights/blue") == manifest
    with pytest.raises(UserError, match="nothing is published as 'sources/red'"):
        _run(step, lake)


def test_a_step_that_fails_publishes_nothing_moves_nothing_and_cleans_up(step, lake):
    _source(lake)
    seen: list[Path] = []

    def fail(ctx: StepContext) -> None:
        ctx.output("rows").bytes("rows.bin", b"abc")
        seen.append(ctx.scratch)
        (ctx.scratch / "file").write_text("local")
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        _run(replace(step, run=fail), lake)
    assert not seen[0].exists()
    assert lake.latest("weights/red") is None
    assert lake.fs.find(lake.path("manifests", "weigh")) == []
    assert _run(step, lake).output("rows").rows == 1


def test_when_commit_fails_the_pointer_stays_and_the_work_is_not_done_twice(step, lake, trace):
    _source(lake)

    def fail(ctx: StepContext, manifest: Manifest) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        _run(replace(step, commit=fail), lake)
    assert lake.latest("weights/red") is None
    manifest = _run(step, lake)
    assert len(trace.runs) == 1
    assert lake.require("weights/red") == manifest


def test_of_two_that_ran_at_once_the_first_published_stands(step, lake):
    _source(lake)
    inner: list[Manifest] = []

    def run(ctx: StepContext) -> None:
        inner.append(_run(step, lake))
        step.run(ctx)

    assert _run(replace(step, run=run), lake) == inner[0]
    assert lake.require("weights/red") == inner[0]


def test_parameters_that_depend_on_the_world_are_in_the_key(step, lake, trace):
    _source(lake)
    world = iter([3, 3, 4])
    completing = replace(step, complete=lambda params, *_: params.model_copy(update={"size": next(world)}))
    sizes = [_run(completing, lake).metrics["size"] for _ in range(3)]
    assert sizes == [3, 3, 4]
    assert len(trace.runs) == 2


@pytest.mark.parametrize(
    ("params", "says"),
    [({"size": "many"}, "size: Input should be a valid integer"), ({"weight": 1}, "weight: Extra inputs")],
)
def test_a_wrong_parameter_is_named_with_those_that_there_are(step, lake, params, says):
    with pytest.raises(UserError, match=says) as e:
        _run(step, lake, params=params)
    assert "size, colour" in e.value.remedy


def test_an_unknown_step_is_answered_with_those_that_there_are():
    with pytest.raises(UserError, match="there is no step 'dream'") as e:
        load_step("dream")
    assert "validate" in e.value.remedy


@pytest.mark.parametrize("name", MODULES)
def test_every_step_that_is_listed_can_be_loaded_under_its_name(name):
    assert load_step(name).name == name
