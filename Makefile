# Each target sets up what it needs. `make` alone shows this list.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 4
# `make POSTGRES=15 test`: on a PostgreSQL of that version, fetched where it is not installed.
ON := $(if $(POSTGRES),$(BIN)/python -m scripts.postgres $(POSTGRES))

# What the tests of the browser, the pooler, the alerts, Kafka and Debezium need; without them those
# are skipped. Any Java from 17 on will do, and any Maven.
PACKAGES := chromium fontconfig fonts-nanum pgbouncer prometheus prometheus-alertmanager \
  $(shell command -v javac >/dev/null || echo default-jdk-headless) \
  $(shell command -v mvn >/dev/null || echo maven)
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)

# Programs that tests start by the hundred would compile themselves anew each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup system demo up test again check format docs bench clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything, from the hashed lock file

system: ## Install the Debian packages with which no test is skipped (asks for sudo)
	@if dpkg --status $(PACKAGES) >/dev/null 2>&1; then echo "All there: $(PACKAGES)"; else \
	  $(SUDO) apt-get update --quiet=2 && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends $(PACKAGES); fi

demo: $(READY) ## Start everything and watch it deliver, in nine short acts
	@$(BIN)/allim demo

up: $(READY) ## Run Allim on http://127.0.0.1:18080
	@$(BIN)/allim up

test: $(READY) ## Run the tests (a PostgreSQL of their own is started)
	$(ON) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

again: $(READY) ## Run what failed last once more, one test at a time
	$(ON) $(BIN)/python -m pytest --last-failed --last-failed-no-failures none

check: $(READY) ## Everything that must hold: lint, format, types, import contracts, tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(MAKE) test

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY) ## Write the generated reference anew and build the site into site/
	$(BIN)/python -m scripts.reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open site/index.html"

bench: $(READY) ## Measure this machine, as ratios to what it could do
	$(BIN)/allim bench

clean: ## Remove .venv and caches (never .allim: your data is there)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis site

# Made anew only when the lock or the package's description has changed.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Allim needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo missing)." >&2; \
	  echo "Install one, or name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "This Python cannot make virtual environments." >&2; \
	  echo "On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing from requirements.lock …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
