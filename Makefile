# The commands a user runs are the commands CI runs.
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8080

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-slow check format bench growth build clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */make \1\t/' | expand -t 18

# The environment is made once; each stamp names what a later run may skip.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; name it with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "No virtual environment could be made; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing modelcloud into $(VENV) (this is done once) …"
	@$(PIP) install --upgrade "pip>=25.1"
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need …"
	@$(PIP) install --constraint constraints.txt --group dev
	@touch $@

run: $(VENV)/.installed  ## Serve examples/fib/model.py on 127.0.0.1:8080 (PORT=… for another port)
	@exec $(BIN)/modelcloud serve examples/fib/model.py --port $(PORT) --option model=big --option version=0.0.1

test: $(VENV)/.installed-dev  ## Every test except those marked slow
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadgroup

test-fast: $(VENV)/.installed-dev  ## Unit tests only
	@$(BIN)/python -m pytest tests/unit -q

test-slow: $(VENV)/.installed-dev  ## The minutes-long tests
	@$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed-dev  ## Format, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Format, and mend what lint can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

$(VENV)/.installed-bench: $(VENV)/.installed
	@$(PIP) install --constraint constraints.txt --group bench
	@touch $@

bench: $(VENV)/.installed-bench  ## Measure beside peers: make bench PEERS=modelcloud,mosec (or all) SECONDS=5
	@scripts/install-system-packages bench
	@$(BIN)/python -m bench $(if $(PEERS),--peers $(PEERS)) $(if $(SECONDS),--seconds $(SECONDS))

growth: $(VENV)/.installed  ## Measure growth: services, connections, large bodies
	@$(BIN)/python -m bench.growth

build: $(VENV)/.installed-dev  ## Wheel and source archive in dist/
	@$(BIN)/python -m build

clean:  ## Remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache dist
