# What people do here. `make help` lists it; each target sets up what it needs.
SHELL := /bin/bash
PY := .venv/bin/python
SOURCES := operator agent shared tests
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.ready ## what every other target needs: Python packages into .venv
.venv/.ready: requirements/dev.txt requirements/setup.sh $(wildcard */pyproject.toml)
	@requirements/setup.sh

demo: setup ## the operator between two real clusters; KEEP=1 leaves them up
	@$(PY) -m tests.lab.demo

render: setup ## what the example tenant needs on the DPUs, without any cluster
	@.venv/bin/dpu-operator render

dpu: setup ## a virtual BlueField-2 with the agent running, and a shell on its console
	@$(PY) -m tests.host up

lint: setup ## linters, types, layers
	@.venv/bin/ruff check --quiet $(SOURCES) && .venv/bin/ruff format --quiet --check $(SOURCES)
	@.venv/bin/mypy --no-error-summary $(SOURCES) && .venv/bin/lint-imports --no-logo 2>&1 | tail -n 3
	@git ls-files -co --exclude-standard '*.sh' .ci/run tests/lab/dpu-lab | xargs shellcheck -x -P SCRIPTDIR

check: lint ## the inner loop: linters, types, unit and wire tests
	@$(PY) -m pytest -q -n $$((2 * $$(nproc))) tests/unit tests/wire tests/bench

test: lint ## every test, the two real clusters and the virtual DPU included
	@$(PY) -m pytest -q -n auto tests/unit tests/wire tests/bench
	@$(PY) -m tests.lab build && $(PY) -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder tests/cluster tests/lab
	@$(PY) -m tests.host build && $(PY) -m pytest -q tests/host

coverage: setup ## which lines and branches the tests without clusters reach
	@$(PY) -m pytest -q -n auto --cov --cov-report=term:skip-covered tests/unit tests/wire

bench: setup ## figures as one JSON object, on the last line
	@$(PY) -m tests.lab build && $(PY) -m tests.bench

lock: ## resolve the requirements anew
	@requirements/lock.sh

.PHONY: help setup demo render dpu lint check test coverage bench lock
