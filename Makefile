# Plantwire: `make demo` shows a live plant, `make test` proves it. Both set everything up first.
#
#   make setup         environment, jars and dashboard; skips what is up to date
#   make demo          setup, then the whole stack with a simulated plant until Ctrl-C
#   make test          setup, then style, types, import contracts and every test but the long ones
#   make test-long     the tests that take minutes each: a generated day, jobs over kills and savepoints, long outages
#   make truth         a generated day, over kills and restarts, held row by row against an offline computation
#   make lint          style, types and import contracts only
#   make fuzz          setup, then every decoder under a coverage-guided fuzzer, about 10 minutes
#   make bench-NAME    setup, then one bench: writes bench/results/NAME.json
#   make clean         what was built; the plant's data stays (`plantwire reset` deletes that)
#
# Needs Python 3.11, a JDK 17 or newer and Maven; npm is used when it is there, else fetched as a package.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
WEB := plantwire/distribution/web

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help setup demo test truth lint fuzz clean browser

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -12

setup: $(STAMPS)/packages $(STAMPS)/project $(STAMPS)/jars $(STAMPS)/web

demo: setup
	@exec $(BIN)/plantwire up

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	export PATH="$$PATH:$(abspath $(BIN))"; cd $(WEB) && npm run --silent check

test: lint browser
	export PATH="$$PATH:$(abspath $(BIN))"; cd $(WEB) && npm test --silent
	$(BIN)/pytest

fuzz: setup
	$(BIN)/python -m tests.fuzz

truth: setup
	$(BIN)/pytest -m "long or not long" tests/truth

test-long: setup
	$(BIN)/pytest -m long tests/truth tests/topology tests/e2e

bench-%: setup
	$(BIN)/python -m bench.$(subst -,_,$*)

clean:
	rm -rf $(VENV) .venv-bench .venv-sparkplug $(WEB)/node_modules $(WEB)/dist $(WEB)/build
	rm -rf .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is missing: install it (Debian: apt install python3.11 python3.11-venv), or make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11, which Flink's Python needs: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "The environment cannot be made: install venv for this Python (Debian: apt install python3.11-venv)" >&2; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/packages: requirements/dev.txt | $(STAMPS)/venv
	@echo "Installing Python packages; the first time this takes a minute or more"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

# Editable: processes and Flink's interpreters all read this work tree.
$(STAMPS)/project: pyproject.toml $(STAMPS)/packages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(STAMPS)/jars: $(shell find plantwire/stack/jars -name pom.xml -o -name '*.java') | $(STAMPS)/project
	$(BIN)/python -m plantwire.stack.java
	@touch $@

# Where there is no npm, one comes as a package; it trusts the certificates that this machine trusts.
$(STAMPS)/web: $(shell find $(WEB) -type f -not -path '*/node_modules/*' -not -path '*/dist/*' -not -path '*/build/*' 2>/dev/null) | $(STAMPS)/packages
	@command -v npm >/dev/null || test -x $(BIN)/npm || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/node.txt
	@command -v npm >/dev/null || export PATH="$$PATH:$(abspath $(BIN))" NODE_OPTIONS=--use-system-ca; \
	  cd $(WEB) && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build
	@touch $@

# Tests marked `browser` skip, saying so, where there is no Chromium.
browser:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium for the browser tests"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null; } \
	    || echo "Chromium cannot be installed: browser tests will be skipped"; \
	else echo "There is no chromium with chromedriver on PATH: browser tests will be skipped"; fi
