# Two commands are enough: `make demo` runs the reference workload, `make test` runs every check.
# Both make .venv where it is missing and touch nothing outside this folder.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INTEROP := $(VENV)/.interop
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
DEMO_OPTIONS ?= --scenario 0 --max-timesteps 500 --seed 42 --debug

.PHONY: demo legacy test lint types imports tests bench clean

demo: $(READY)
	$(BIN)/python -m examples.carla_td3.train --preset fixed $(DEMO_OPTIONS)

legacy: $(READY)
	$(BIN)/python -m examples.carla_td3.train --preset legacy $(DEMO_OPTIONS)

test: lint types imports tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INTEROP)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

tests: $(INTEROP)
	$(BIN)/pytest -m "not bench"

bench: $(READY)
	$(BIN)/pytest -m bench -s

# Made again when what it installs has changed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "gradwatch needs Python 3.10 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt torch==2.13.0
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[all,dev]'
	touch $(READY)

# The libraries whose training loops the tests run; the demo does without them.
$(INTEROP): $(READY)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[interop]'
	touch $(INTEROP)

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
