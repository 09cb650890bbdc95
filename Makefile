# One target for each thing a contributor does; each does the set-up that it needs, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1

.PHONY: help setup compare test test-learning lint format lab wheel clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## install everything, pinned, into .venv

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

compare: $(READY) ## the main job: compare the algorithms on the embedded lab
	$(BIN)/prefzoo compare quickstart

test: $(READY) ## the tests that fit into a few minutes
	$(BIN)/python -m pytest -m "not learning"

test-learning: $(READY) ## the learning tests with their negative controls; eight minutes on 4 cores
	$(BIN)/python -m pytest -m learning

lint: $(READY) ## style, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## mend style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab: $(READY) ## train the bundled lab model again
	$(BIN)/python -m prefzoo.lab.build

wheel: $(READY) ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## remove what was built and installed; runs/ stays
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
