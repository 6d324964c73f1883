# The commands of this project. Where there is no make, tools/setup.py sets up and .venv/bin/groundup does the rest.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PYTEST := $(BIN)/python -m pytest
EVERYDAY := $(wildcard tests/unit tests/arch tests/e2e tests/faults)

.PHONY: help setup setup-test demo test parity check static format clean
.DEFAULT_GOAL := help

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 18

setup:  ## install Groundup and all it needs into .venv (PYTHON=... chooses the Python)
	@$(PYTHON) tools/setup.py

setup-test:
	@$(PYTHON) tools/setup.py --test

demo: setup  ## set up, then train, align and evaluate the demo's models (about 10 minutes)
	@$(BIN)/groundup run demo

test: setup-test  ## the everyday tests, and what was skipped and why
	@$(PYTEST) -m "not slow" $(EVERYDAY) $(PYTEST_ARGS)

parity: setup-test  ## comparisons with Hugging Face, PEFT and TRL, and the slow tests
	@$(PYTEST) -m "parity or slow" tests $(PYTEST_ARGS)

check: static  ## format, lint, types, import rules and the fast tests
	@$(PYTEST) -q -m "not slow" tests/unit tests/arch

static: setup-test  ## format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup-test  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches and build leftovers; .venv and runs stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache src/*.egg-info
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
