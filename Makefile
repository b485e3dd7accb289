# The daily verbs. `make repro` and `make test` set up what they need in .venv, once.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: help repro lint test test-all bench

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

repro: .venv/requirements.installed  ## set up, then run the workflow: download, train, evaluate, report, export
	dvc repro
	@python -m src.summary

lint: .venv/requirements-dev.installed  ## set up, then check format, code, types and the CI workflows
	ruff format --check
	ruff check
	pyrefly check
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	zizmor --offline --quiet .github

test: .venv/requirements-dev.installed  ## set up, then run the tests
	python -m pytest

test-all: .venv/requirements-dev.installed  ## the same with the full campaign of faults: 50 minutes
	python -m pytest --all

bench: .venv/requirements.installed  ## measure: one table, the same figures in benchmarks/results.json
	dvc repro download
	python -m benchmarks

# A stamp for each requirements file: pip runs again only when the file has changed.
.venv/requirements-dev.installed: requirements.txt
.venv/%.installed: %.txt | .venv/bin/python
	python -m pip install --disable-pip-version-check -r $<
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "error: $(PYTHON) is Python %d.%d, torch needs 3.11 or newer; run `make PYTHON=python3.11 ...`" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
