# A newcomer needs `make demo` and `make test`; each sets up what it needs first.

PYTHON ?= python3
VENV ?= .venv

PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.archspec-installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test unit check format clean

help:
	@echo "make demo     see archspec at work"
	@echo "make test     run all tests"
	@echo "make unit     run the fast tests"
	@echo "make check    format, lint, types, all tests: what CI runs"
	@echo "make format   fix what the linter can fix, format, and write the schema for editors"
	@echo "make setup    only install, into VENV=$(VENV), with PYTHON=$(PYTHON)"
	@echo "make clean    remove caches and build output"

setup: $(INSTALLED)

# The stamp is written last, so an interrupted installation is taken up again.
$(INSTALLED): pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time this takes some minutes and 6 GB." >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(PY) -m archspec.demo

test: $(INSTALLED)
	$(PY) -m pytest -n 2

unit: $(INSTALLED)
	$(PY) -m pytest -n 2 -m "not slow"

check: $(INSTALLED)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest -n 2

format: $(INSTALLED)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/archspec schema > specs/archspec.schema.json

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find archspec blocks search specs tests -type d -name __pycache__ -prune -exec rm -rf {} +
