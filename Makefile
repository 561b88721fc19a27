# Targets for users and developers. `setup` installs everything needed; the others call it.
SHELL := /bin/bash
XDG_CACHE_HOME ?= $(HOME)/.cache
STRONGROOM_CACHE ?= $(XDG_CACHE_HOME)/strongroom
export STRONGROOM_CACHE
CACHE := $(STRONGROOM_CACHE)
PYTHON ?= python3
UV := $(CACHE)/uv/bin/uv
BIN := .venv/bin
export UV_CACHE_DIR ?= $(CACHE)/uv-cache
# One worker for each core: the tests share one control plane, which needs its part of two cores.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup testbed node demo test compat check bench docs clean lock

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

$(UV):
	@mkdir -p $(CACHE)
	$(PYTHON) -m venv $(CACHE)/uv
	$(CACHE)/uv/bin/python -m pip --quiet install 'uv>=0.13,<0.14'

.venv/.stamp: pyproject.toml constraints.txt | $(UV)
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) .venv
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[cli,controlplane,testbed]' --group dev
	@touch $@

setup: .venv/.stamp  ## install everything into .venv (leaves .venv/bin/strongroom)

testbed: setup  ## build the test cluster's binaries into the cache (about ten minutes, once)
	$(BIN)/strongroom testbed build

demo: testbed  ## protect, break and restore a sample application on a real control plane
	$(BIN)/python -m strongroom.cli.demo

# Pods that really run need root and more; where they cannot, their tests are left out by the same question, and say so.
node: testbed
	@reason=$$($(BIN)/python -c 'from strongroom.testbed.capsule import unsupported; print(unsupported() or "")') && \
	if [ -n "$$reason" ]; then echo "no tests of a real node: $$reason"; else $(BIN)/strongroom testbed build --level node; fi

# Beside other tests on two cores the node's pods come up too late, so they have a run of their own.
NODE_TESTS := $(wildcard tests/integration/test_testbed_node*.py tests/integration/test_hooks_*.py tests/integration/test_kube_exec_node.py)

test: check testbed node  ## every check and every test
	$(BIN)/pytest -n $(WORKERS) --dist loadfile $(NODE_TESTS:%=--ignore=%) tests
	$(BIN)/pytest $(NODE_TESTS)

compat: testbed  ## the tests with azure-cli, which is installed into the cache (370 MB, once)
	$(BIN)/python -m strongroom.testbed.azure_cli
	$(BIN)/pytest tests/compat

check: setup  ## formatting, lint, types, import contracts, dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src

bench: testbed  ## measure speed and memory, and print the tables of benchmarks/
	$(BIN)/python benchmarks/run.py

docs: setup  ## check that the documents' links and examples hold
	$(BIN)/pytest -q tests/unit/test_documents.py

lock: | $(UV)  ## pin the newest versions that pyproject.toml allows
	$(UV) pip compile --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 --upgrade --all-extras --group dev pyproject.toml --output-file constraints.txt

clean:  ## remove what the targets made in the checkout (the cache stays)
	rm -rf .venv build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
