# Two commands are enough: `make demo` runs the reference workload, `make test` runs every check.
# Both make .venv where it is missing and touch nothing outside this folder.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INTEROP := $(VENV)/.interop
DOCS := $(VENV)/.docs
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
GPU_OUT ?= runs/gpu
# In which the tests run side by side.
PROCESSES ?= 2
# Built by the editable install, where there is a C compiler.
KERNEL := setup.py $(wildcard gradwatch/measure/*.c gradwatch/measure/*.h)
DEMO_OPTIONS ?= --scenario 0 --seed 42 --debug
# Enough to drive by: a warm-up of 500 decisions and 800 updates.
LEARNS := --preset fixed --learning-starts 500 --max-timesteps 1300 --batch-size 32

# The oldest versions that the package supports need a Python of their time.
OLDEST_PYTHON ?= python3.11
OLDEST := .venv-oldest
OLDEST_READY := $(OLDEST)/.ready

.PHONY: demo legacy test lint types imports tests test-oldest healthy bench docs soak gpu sanitize prometheus deploy demo-alerts clean

# One thread of torch: on a machine that is busy, or that lets a container have less than the cores it shows, several
# wait for each other most of the time.
demo legacy: export OMP_NUM_THREADS ?= 1

demo: $(READY)
	$(BIN)/python -m examples.carla_td3.train $(LEARNS) $(DEMO_OPTIONS)

# Ends with exit code 0 where its checklist fails, as that of this agent must.
legacy: $(READY)
	$(BIN)/python -m examples.carla_td3.train --preset legacy --max-timesteps 500 $(DEMO_OPTIONS) || test $$? -eq 3

test: lint types imports tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INTEROP)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

# A process for each of two cores, and in each of them one thread of torch; `pytest` alone runs all tests in one.
tests: $(INTEROP) $(DOCS)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(PROCESSES)

# The tests of the package itself on the oldest versions that it supports, in an environment of their own: 0.9 GB
# are fetched for it. No GPU is shown to them, see tests/oldest/without_cuda.py.
test-oldest: $(OLDEST_READY)
	CUDA_VISIBLE_DEVICES= $(OLDEST)/bin/pytest -m "not interop"

# Four healthy trainings of 22,000 optimizer steps, in which no critical alert may fire, see docs/healthy.md.
# HEALTHY_OPTIONS="--variants --seeds 1 2" for those in other settings.
healthy: $(INTEROP)
	$(BIN)/python -m tests.healthy $(HEALTHY_OPTIONS)

# What tracking adds to the loops of real libraries, see docs/cost.md: ten minutes of an idle machine.
# BENCH_OPTIONS="--only dqn ppo --rounds 5" for less.
bench: $(INTEROP)
	$(BIN)/python -m tests.bench $(BENCH_OPTIONS)

# The pages of docs/ as a site, in site/: `python3 -m http.server -d site` shows it, search and all.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# A million tracked steps with every sink, a scrape a second, and 400 trainings killed, see docs/soak.md: half an hour of
# an idle machine. SOAK_OPTIONS="--steps 100000" or "--minutes 10" for less.
soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak --out runs/soak.json $(SOAK_OPTIONS)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.killed 200 --freely > runs/killed.json
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.killed 200 --freely --beside-a-slow-sink > runs/killed-beside.json

# On a machine with a CUDA device, with the Python and the torch that are there: nothing is installed or fetched,
# see docs/gpu.md.
gpu:
	$(PYTHON) -m tests.gpu --out $(GPU_OUT)

# The programs that alerts travel through, unpacked into a folder; the tests and `make demo-alerts` use them.
PROGRAMS := .prometheus/.ready
prometheus: $(PROGRAMS)
$(PROGRAMS): tests/monitoring/live/unpack.sh
	tests/monitoring/live/unpack.sh .prometheus

# A training whose actor dies, and the alert on its way to a pager, in a minute.
demo-alerts: $(READY) $(PROGRAMS)
	$(BIN)/python -m tests.monitoring.live

# What operators copy, written anew from its table.
deploy: $(READY)
	$(BIN)/python -m tests.monitoring

# The native kernel built with the sanitizers of gcc, and run while other threads free and move what it reads.
SANITIZED := build/sanitized
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g
sanitize: $(READY)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt setuptools
	rm -rf $(SANITIZED)
	CFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" $(BIN)/python setup.py --quiet build \
		--build-base $(SANITIZED)/objects --build-lib $(SANITIZED)/package
	PYTHON=$(abspath $(BIN)/python) tests/measure/sanitized.sh $(SANITIZED)/package

# Made again when what it installs has changed.
$(READY): pyproject.toml constraints.txt $(KERNEL)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "the pinned packages need Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt torch==2.13.0
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[all,dev]'
	touch $(READY)

# The libraries whose training loops the tests run; the demo does without them.
$(INTEROP): $(READY)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[interop]'
	touch $(INTEROP)

$(DOCS): $(READY)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[docs]'
	touch $(DOCS)

$(OLDEST_READY): pyproject.toml $(KERNEL) constraints-oldest.txt tests/oldest/without_cuda.py
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python $(PIP_INSTALL) --no-deps --requirement constraints-oldest.txt
	$(OLDEST)/bin/python tests/oldest/without_cuda.py
	$(OLDEST)/bin/python $(PIP_INSTALL) --no-deps --editable .
	touch $(OLDEST_READY)

clean:
	rm -rf $(VENV) $(OLDEST) .prometheus runs site .mypy_cache .ruff_cache .pytest_cache .hypothesis
