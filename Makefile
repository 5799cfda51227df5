# SPDX-License-Identifier: Apache-2.0
# Everything a person or CI does with this repository. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DELETE_ON_ERROR:

BIN := .venv/bin
STAMP := .venv/.installed
SOURCES := $(wildcard agent adapter/src tests benchmarks examples docs)

# The first interpreter that is new enough. Not plain `python3 ||`: on many machines that is an older one.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP)  ## create or update .venv from the hashed requirement files

$(STAMP): requirements/dev.txt pyproject.toml adapter/pyproject.toml
	@[[ -n "$(PYTHON)" ]] || { echo "make: no Python 3.11 or newer found; install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "setup: .venv for $$($(PYTHON) --version), from requirements/dev.txt"
	@[[ -x $(BIN)/python ]] || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e adapter -e .
	@$(BIN)/python -m pip check --quiet
	@touch $@
