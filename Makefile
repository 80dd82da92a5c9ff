# One command runner for people and CI. `make` alone prints what there is.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
JOBS   ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo up test conformance lint format fuzz soak bench cover lock clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed, `$(PYTHON)` is {sys.version.split()[0]}: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo 'the venv module is missing: on Debian, apt-get install python3-venv'; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable .
	@touch $@

$(BIN)/.tested: $(BIN)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[test]'
	@touch $@

demo: $(BIN)/.installed  ## the whole thing on this machine, with a simulated fleet (ARGS=--once ends by itself)
	@$(BIN)/python -m simulator.demo $(ARGS)

up: $(BIN)/.installed  ## start service and broker with data in ./var
	@$(BIN)/authsvc up $(ARGS)

test: $(BIN)/.tested  ## run the tests (ARGS is handed to pytest), JOBS=2 side by side, then those that measure time
	@sh tests/needs.sh
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow and not alone" $(ARGS)
	@$(BIN)/python -m pytest -m "alone and not slow" $(ARGS) || test $$? -eq 5  # 5: none of them was chosen

conformance: $(BIN)/.tested  ## every broker against the same cases: prints the matrix (ARGS=--write renews it in docs/brokers)
	@sh tests/needs.sh
	@$(BIN)/python -m tests.conformance $(ARGS)

lint: $(BIN)/.tested  ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(BIN)/.tested  ## let ruff format and mend what it can
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

cover: $(BIN)/.tested  ## branch coverage of the core, which must be complete
	@$(BIN)/python -m pytest -q -n $(JOBS) tests/core --cov=authsvc/core --cov-branch --cov-report=term-missing --cov-fail-under=100

fuzz: $(BIN)/.tested  ## ten minutes of coverage-guided fuzzing of the packet parsers (SECONDS=600)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[fuzz]'
	@$(BIN)/python -m tests.fuzz.fuzz_wire $(or $(SECONDS),600)

soak: $(BIN)/.tested  ## the long versions of the tests that race, kill and flood
	@AUTHSVC_TEST_SECONDS=$(or $(SECONDS),300) $(BIN)/python -m pytest -n $(JOBS) -m slow $(ARGS)

bench: $(BIN)/.tested  ## all benchmarks side by side (ARGS=--quick for one round each)
	@sh tests/needs.sh
	@$(BIN)/python -m tests.bench $(ARGS)

lock: $(BIN)/.tested  ## write requirements.lock anew from what is installed and tested
	@$(BIN)/python -m pip freeze --exclude-editable | grep -v -E '^(pip|setuptools|wheel|atheris)==' > requirements.lock

clean:  ## remove the virtual environment and caches, not the data
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
