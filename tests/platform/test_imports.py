"""A step imports only what it needs: start-up is paid for in every task of every run."""

import json
import subprocess
import sys

import pytest

ENGINES = {"torch", "ray", "feast", "great_expectations", "mlflow", "faiss"}
TABLES = {"polars", "pandas", "pyarrow", "numpy", "sklearn", "matplotlib"}
MEASURE = """
import importlib, json, sys, time
start = time.process_time()
importlib.import_module(sys.argv[1])
print(json.dumps([time.process_time() - start, sorted({m.split(".")[0] for m in sys.modules})]))
"""


def _import(module: str) -> tuple[float, set[str]]:
    """CPU seconds of importing `module` in a fresh process, and what came with it."""
    done = subprocess.run([sys.executable, "-c", MEASURE, module], capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stdout.splitlines()[-1])
    return seconds, set(modules)


def test_the_command_line_starts_at_once():
    measured = [_import("pinloom.cli") for _ in range(3)]
    assert min(seconds for seconds, _ in measured) < 0.5
    assert not measured[0][1] & (ENGINES | TABLES)


@pytest.mark.parametrize(
    ("module", "needs"),
    [
        ("pinloom.steps.job", set()),
        ("pinloom.steps.ingest", set()),
        # A run whose manifest exists already pays for no engine.
        ("pinloom.steps.validate", set()),
        ("pinloom.validation.gate", {"great_expectations"}),
        ("pinloom.steps.features", set()),
        ("pinloom.steps.materialize", set()),
        ("pinloom.steps.graph", set()),
        ("pinloom.steps.neighbourhoods", set()),
        ("pinloom.steps.train", {"torch"}),
        # Both score: evaluation the run, promotion the champion again on the run's split.
        ("pinloom.steps.evaluate", {"torch"}),
        ("pinloom.steps.promote", {"torch"}),
        ("pinloom.steps.embed", {"torch"}),
        ("pinloom.steps.index", {"faiss"}),
        ("pinloom.steps.deploy", set()),
    ],
)
def test_a_step_imports_no_engine_that_it_does_not_need(module, needs):
    _, modules = _import(module)
    assert not modules & (ENGINES - needs)
    assert needs <= modules, "a step that no longer needs an engine must say so"


def test_reading_a_history_compiles_nothing():
    """What builds the ranking rows of a whole log is compiled; a replica has one request at a time."""
    _, modules = _import("components.history.build")
    assert not modules & (ENGINES | {"numba"})


@pytest.mark.parametrize("module", ["pinloom.serving.service", "pinloom.evaluation.scoring"])
def test_rankings_pay_for_no_graph_and_no_index(module):
    """PinSage is compiled and the index loaded where there is one, not in every replica and every evaluation."""
    _, modules = _import(module)
    assert not modules & {"numba", "faiss"}
