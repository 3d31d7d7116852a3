# The README's commands. Everything lives in .venv; `make clean` removes it.

PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BENCH := .venv-bench
BIN := $(VENV)/bin
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow lint format bench accuracy setup clean

demo: $(VENV)/.ready  ## set up and run the first tutorial on real data
	$(BIN)/python tutorials/00_first_steps.py

test: lint  ## set up, check the code, run all tests
	$(BIN)/python -m pytest tests/test_tiny.py -q
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -q

test-slow: $(VENV)/.ready  ## the long statistical checks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -q -m slow

lint: $(VENV)/.ready  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready $(BENCH)/.ready  ## side by side with the peers
	$(BIN)/python benchmarks/eager.py --pyro-python $(BENCH)/bin/python
	$(BIN)/python benchmarks/memory.py --pyro-python $(BENCH)/bin/python
	$(BIN)/python benchmarks/enumeration.py --pyro-python $(BENCH)/bin/python --numpyro-python $(BENCH)/bin/python
	$(BIN)/python benchmarks/svi.py --write --pyro-python $(BENCH)/bin/python --numpyro-python $(BENCH)/bin/python

accuracy: $(VENV)/.ready $(BENCH)/.ready  ## write docs/distributions_accuracy.md
	$(BIN)/python benchmarks/accuracy.py --pyro-python $(BENCH)/bin/python

setup: $(VENV)/.ready

$(VENV)/.ready: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

$(BENCH)/.ready: setup.cfg constraints.txt
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -q -c constraints.txt -e '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) .pytest_cache .mypy_cache .ruff_cache output
