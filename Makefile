# One command per task. The environment in .venv is created by whichever target needs it first.

PYTHON ?= python3
SEED ?= 1
SEEDS ?= 1000
BIN := .venv/bin

.DELETE_ON_ERROR:
.PHONY: help demo test check lint types sim soak clean

help:
	@echo 'make demo           three nodes, real clients, one kill -9, a report'
	@echo 'make test           lint, types and all tests (what .ci/run does)'
	@echo 'make check          lint, types, doctests and the tests that start no process'
	@echo 'make sim SEED=7     one simulated cluster under the faults that the seed draws'
	@echo 'make soak SEEDS=5000  many seeds, and the property tests with many examples'

demo: .venv/installed
	$(BIN)/python -m dcc.demo

# Processes are timed, so they have the machine to themselves; all else shares it.
test: check
	$(BIN)/python -m pytest -m 'process or slow' tests

check: lint types
	$(BIN)/python -m pytest --numprocesses auto --doctest-modules -m 'not process and not slow' dcc tests

lint: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-for-tests
	$(BIN)/python -m mypy

sim: .venv/installed
	$(BIN)/python -m simulations run --seed $(SEED)

soak: .venv/installed-for-tests
	$(BIN)/python -m simulations run --seed $(SEED) --seeds $(SEEDS)
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest -m 'not process' --timeout 3600 dcc tests

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'dcc needs Python 3.11 or newer; name one: make PYTHON=python3.12 …' >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/installed-for-tests: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ .venv/installed
