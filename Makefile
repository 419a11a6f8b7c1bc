# Two commands do everything: `make drill` and `make test`. Each does all the set-up it needs.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Every command here starts many Pythons; where each has to compile its libraries anew, a start takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup drill test check bench lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## everything a fresh machine needs: .venv, the Pulumi engine (warm: nothing to do)
	@$(PYTHON) tools/setup.py

drill: setup  ## the quarterly drill on the embedded cloud, from a seeded production to an empty account
	@$(BIN)/python -m examples.agentverse drill

# In the order of their folders the long files come early, so that neither process waits for the other's last one.
# Types are checked beside the tests: from cold that takes one processor two minutes.
test: setup  ## every test
	@$(BIN)/python tools/checks.py lint
	@$(BIN)/python tools/checks.py types & types=$$!; \
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$types && exit $$tests

check: setup  ## the fast lane: lint, types, the quick tests; about a minute
	@$(BIN)/python tools/checks.py lint types
	@$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile

bench: setup  ## the benchmarks, each with its peer in the same run (FULL=1: 1.5 GB instead of 400 MB)
	@$(BIN)/python -m benchmarks $(if $(FULL),--full)

lock: setup  ## resolve pyproject.toml anew into requirements.lock
	@$(BIN)/uv pip compile --quiet --group dev --universal --generate-hashes --no-header --no-annotate --upgrade \
		pyproject.toml --output-file requirements.lock

clean:  ## remove what set-up and tests made in this folder (the engine's cache stays)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .setup.lock
