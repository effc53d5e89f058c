# The commands a user runs are the commands CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 8080

.PHONY: run test test-fast test-slow check format setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $(STAMP)

run: setup  ## Serve the example on 127.0.0.1:8080
	@$(BIN)/modelcloud serve examples/fib/model.py --port $(PORT) --option model=big --option version=0.0.1

test: setup  ## Every test except those marked slow
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadgroup

test-fast: setup  ## Unit tests only
	@$(BIN)/python -m pytest tests/unit -q

test-slow: setup  ## The minutes-long ones
	@$(BIN)/python -m pytest -m slow

check: setup  ## Format, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: setup
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache dist
