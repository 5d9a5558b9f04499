# What a person does with this checkout. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Tests that need no server are cheap and many; those with servers and clients share two processes.
PURE := tests/domain tests/protocol
# Lines that run in the tests' own processes are counted. To count in all servers too costs much more: make coverage.
COUNTED := --cov --cov-append --cov-report=
ROOMS := tagtrail command_api query_api projections protocol eventstore blobstore domain
PART ?= all

.PHONY: help serve venv dev tools test test-long coverage bench bench-peers bench-compare bench-feed test-clients lint format lock clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Options of serve are variables: TAGTRAIL_LISTEN=127.0.0.1:6000 TAGTRAIL_DATA=/srv/tagtrail make serve"

serve: $(VENV)/.installed ## Start a registry on 127.0.0.1:5000 with its data in ./data
	@exec $(BIN)/tagtrail serve

venv: $(VENV)/.installed ## Make .venv with what the program needs

dev: $(VENV)/.installed-dev ## Make .venv with what its development needs too

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "tagtrail needs Python 3.11 or newer; name one: make serve PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "$(PYTHON) has no venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing tagtrail into $(VENV)/ (only when its requirements changed) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV)/ ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

tools: ## Install the clients and the conformance suite that tests drive
	@$(PYTHON) scripts/tools.py install

test: $(VENV)/.installed-dev tools lint ## Everything but what takes minutes to build or to run
	@# Some machines keep Python from writing compiled code, and hundreds of processes would compile it each.
	@$(BIN)/python -m compileall -q $(ROOMS) tests
	@$(BIN)/coverage erase
	@$(BIN)/pytest -q -n 2 --dist worksteal $(COUNTED) $(PURE)
	@$(BIN)/pytest -n 2 --dist loadgroup $(COUNTED) -m "not slow" $(addprefix --ignore=,$(PURE))
	@echo "Coverage: $$($(BIN)/coverage report --format=total) % of the lines, by the tests' own processes alone"

coverage: $(VENV)/.installed-dev tools ## The same tests slower: which lines run, in any process, file by file; PART=FOLDER
	@$(BIN)/coverage erase
	@$(BIN)/pytest -n 2 --dist loadgroup --cov --cov-config=tests/coverage.toml --cov-report= -m "not slow" \
	  $(if $(filter all,$(PART)),tests,tests/$(PART)) || echo "Not all tests passed; what ran is counted" >&2
	@$(BIN)/coverage report --skip-covered

test-long: $(VENV)/.installed-dev tools ## The slow tests; PART=NAME for those whose name holds NAME
	@$(PIP) install --require-hashes --only-binary=:all: -r requirements-fuzz.txt 2>/dev/null \
	  || echo "No atheris for this machine: the test that it guides is skipped"
	@$(BIN)/pytest -m slow $(if $(filter all,$(PART)),,-k '$(PART)')

bench: $(VENV)/.installed-dev ## Ours beside the other registries that are installed; BENCH_ROWS=ping,blob-4k BENCH_RUNS=5
	@$(PYTHON) scripts/tools.py install --require docker-registry
	@$(BIN)/python -m bench.registries.run

bench-peers: ## Build the other registries that can be had, for make bench
	@$(PYTHON) scripts/tools.py install docker-registry registry

# `make bench-compare OLD.json NEW.json`: the files are no targets to make.
ifeq (bench-compare,$(firstword $(MAKECMDGOALS)))
COMPARED := $(wordlist 2,3,$(MAKECMDGOALS))
.PHONY: $(COMPARED)
$(COMPARED): ; @:
endif

bench-compare: $(VENV)/.installed-dev ## Two runs of make bench side by side: make bench-compare OLD.json NEW.json
	@$(BIN)/python -m bench.registries.compare $(COMPARED)

bench-feed: $(VENV)/.installed-dev tools ## Rebuild, projection, relay and overlay measured; EVENTS=1000000
	@$(BIN)/python bench/feed.py $(or $(EVENTS),1000000)

test-clients: $(VENV)/.installed-dev ## Every client, also those that take minutes to build
	@$(PYTHON) scripts/tools.py install --all
	@$(BIN)/pytest --all-clients tests/clients

lint: $(VENV)/.installed-dev ## Style, types and the rooms' import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## Let ruff put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

COMPILE := env -u PIP_FIND_LINKS -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL CUSTOM_COMPILE_COMMAND="make lock" \
	$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	--strip-extras --allow-unsafe $(UPGRADE)

lock: $(VENV)/bin/python ## Pin the requirements anew; UPGRADE=--upgrade takes newer versions
	@$(BIN)/python -c 'import piptools' 2>/dev/null || $(PIP) install 'pip-tools>=7.5,<8'
	@$(COMPILE) --output-file=requirements.lock pyproject.toml
	@$(COMPILE) --extra=dev --constraint=requirements.lock --output-file=requirements-dev.lock pyproject.toml

clean: ## Remove what was built; ./data stays
	rm -rf $(VENV) build dist wheelhouse *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
