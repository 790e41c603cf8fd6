# Blaid: the commands a person needs. Each works from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# 2026-11-20: pip refuses a hashed lock whose extras were stripped; uv, pinned, installs it in seconds.
UV_VERSION := 0.13.8
PROJECT = $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo up down test test-fast check format lock clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/uv:
	@echo "Making $(VENV) ..."
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Blaid needs Python 3.11, 3.12 or 3.13; this is %d.%d. Try: make PYTHON=python3.12 ..." % v)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/uv
	@echo "Installing from requirements.lock ..."
	@if [ -e $(VENV)/.dev ]; then touch $@; else $(BIN)/uv pip sync --quiet --require-hashes requirements.lock; fi
	@$(PROJECT)
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/uv
	@echo "Installing from requirements-dev.lock ..."
	@$(BIN)/uv pip sync --quiet --require-hashes requirements-dev.lock
	@$(PROJECT)
	@touch $@

install: $(VENV)/.runtime ## Make .venv and install what the product needs
install-dev: $(VENV)/.dev ## The same, with test tools and oracles

demo: $(VENV)/.runtime ## Run the main job end to end, no key needed
	@$(BIN)/blaid demo

up: $(VENV)/.runtime ## Start Postgres, the Dagster webserver and daemon on loopback
	@$(BIN)/blaid up

down: ## Stop all of it
	@$(BIN)/blaid down

test: $(VENV)/.dev ## The whole suite (BLAID_REAL_DATA=folder adds the tests on real data)
	@$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/.dev ## Without the slow tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

check: $(VENV)/.dev ## ruff, mypy strict, import contracts, room names
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tests/tools/check_room_names.py

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(BIN)/uv ## Resolve the dependencies again
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" --extra build --extra dev --extra oracles pyproject.toml -o requirements-dev.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" --extra build -c requirements-dev.lock pyproject.toml -o requirements.lock

clean: ## Remove what was built (not the data folder .blaid)
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
