# One command per task. The environment in .venv is created by whichever target needs it first.

PYTHON ?= python3
SEED ?= 1
SEEDS ?= 1000
MINUTES ?= 15
BIN := .venv/bin

.DELETE_ON_ERROR:
.PHONY: help demo test check lint types sim soak chaos peers docs package bench clean

help:
	@echo 'make demo           three nodes, real clients, one kill -9, a report'
	@echo 'make test           lint, types and all tests (what .ci/run does)'
	@echo 'make check          lint, types, doctests and the tests that start no process'
	@echo 'make sim SEED=7     one simulated cluster under the faults that the seed draws'
	@echo 'make soak SEEDS=5000  many seeds, and the property tests with many examples'
	@echo 'make chaos SEED=7 MINUTES=60  real nodes and clients under the faults that the seed draws'
	@echo 'make peers          the test suites of Django, dogpile.cache and others, on real nodes'
	@echo 'make docs           these documents as a site in docs/_build/html, without a warning'
	@echo 'make package        wheel and source distribution in dist/, checked; the wheel installed and run'
	@echo 'make bench          dcc beside Redis, Valkey and memcached clients, in one run'

demo: .venv/installed
	$(BIN)/python -m dcc.demo $(if $(KEYS),--keys)

# Processes are timed, so they have the machine to themselves; all else shares it.
test: check
	$(BIN)/python -m pytest -m 'process or slow' tests

check: lint types
	$(BIN)/python -m pytest --numprocesses auto --doctest-modules --doctest-ignore-import-errors -m 'not process and not slow' dcc tests

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

chaos: .venv/installed
	$(BIN)/python -m simulations.chaos --seed $(SEED) --minutes $(MINUTES)

peers: .venv/installed-for-tests .venv/peers/installed
	$(BIN)/python -m tests.peers.run

# A warning is an error; then the examples in what was built are run.
docs: .venv/installed-for-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env --write-all -b html docs docs/_build/html
	$(BIN)/python -m sphinx --fail-on-warning --quiet -b doctest docs docs/_build/doctest

# PYTHON=python3.13 names the one that the wheel is tried on, in an environment that has nothing else.
package: .venv/installed-for-package
	rm -rf build dist .venv/wheel
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist
	$(PYTHON) -m venv .venv/wheel
	.venv/wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd .venv/wheel && bin/dcc --version && bin/python -c 'import dcc.contrib.cache, dcc.local, dcc.demo'

bench: .venv/installed-for-bench
	$(BIN)/python -m benchmarks.peers --json bench.json --chart bench.png

clean:
	rm -rf .venv build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'dcc needs Python 3.11 or newer; name one: make PYTHON=python3.12 …' >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/installed-for-tests: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,frameworks]'
	@touch $@ .venv/installed

.venv/installed-for-docs: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@ .venv/installed

.venv/installed-for-package: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[package]'
	@touch $@ .venv/installed

.venv/installed-for-bench: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@ .venv/installed

# Fetched, with hashes, and never kept in the repository; build tools come as wheels.
.venv/peers/installed: tests/peers/requirements.txt tests/peers/sources.txt setup.cfg | .venv/bin/python
	$(PYTHON) -m venv .venv/peers
	.venv/peers/bin/python -m pip install --quiet --disable-pip-version-check -e . -r tests/peers/requirements.txt
	.venv/peers/bin/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps \
		--no-binary django,cachelib,flask-caching,aiocache --dest .venv/peers/sources -r tests/peers/sources.txt
	@touch $@
