# Everything goes into .venv; nothing else is installed. `make demo` and `make test` are all that a fresh machine needs.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

export DO_NOT_TRACK = 1
export FEAST_USAGE = False
export GX_ANALYTICS_ENABLED = False
export MLFLOW_DISABLE_TELEMETRY = true
export RAY_USAGE_STATS_ENABLED = 0
export SCARF_ANALYTICS = false

.PHONY: install demo test test-full kind lint format bench constraints clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed ## create .venv and install everything into it

$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not on the PATH; set PYTHON=<python 3.11 or 3.12>"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --link-mode=copy --compile-bytecode --constraint constraints.txt --editable '.[airflow,ray,demo,dev]'
	touch $@

demo: install ## a real log, through every engine, to a served ranking (KEEP=1 leaves it running)
	$(BIN)/python -m pinloom.demo

test: install ## all but scale, soak and image builds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile -m "not scale and not cluster and not kind" tests
	$(BIN)/python -m pytest -m "cluster and not scale and not kind" tests

test-full: test ## everything
	$(BIN)/python -m pytest -m "scale and not kind" tests

kind: install ## the chart on a kind cluster, or on the one of PINLOOM_KUBECONFIG
	$(BIN)/python -m pytest -s -m kind tests/kind

lint: install ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy components platform/pinloom dags benchmarks

format: install ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## every benchmark, each beside its rival; at the end, which missed a goal
	@missed=; \
	for name in $$(ls benchmarks/*.py | xargs -n1 basename | sed 's/.py//' | grep -v '^_'); do \
		echo "benchmarks.$$name"; $(BIN)/python -m benchmarks.$$name || missed="$$missed $$name"; \
	done; \
	test -z "$$missed" || { echo "make: a goal was missed, or the run failed:$$missed"; exit 1; }

constraints: install ## resolve the pins anew
	$(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 --no-header --no-annotate --upgrade -o constraints.txt

clean: ## remove what runs left behind, not .venv
	rm -rf .pinloom .pytest_cache .mypy_cache .ruff_cache
