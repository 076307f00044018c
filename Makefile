# One command for each thing that a person does here; CONTRIBUTING.md explains them.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
REPORT ?= demo-report
NAME ?= mtlsign
SEED ?= 1
PERCENT ?= 100
SETTING ?= small

.PHONY: setup demo test long check slow exhaustive gpu torture lint types coverage gate bench bench-paper bench-schemes docs deploy-check clean

setup: $(STAMP)

# Set up again when the list of dependencies changes, and only then.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "wmreg needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "setting up $(VENV) (once; PyTorch is large)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/wmreg demo --report $(REPORT)

# COVERAGE=1 collects what `make gate` judges.
test: $(STAMP)
	$(BIN)/python -m $(if $(COVERAGE),coverage run -m )pytest -n 2

check: lint types coverage

# What takes a second or more each. With `make test` that is what `make gate` judges.
long: $(STAMP)
	$(BIN)/python -m $(if $(COVERAGE),coverage run -m )pytest -n 2 --dist loadscope -m 'long and not slow and not exhaustive and not gpu and not torture'

# Clusters of real nodes one after another, since each uses all cores; the rest two at a time, a core each, and what
# shares costly fixtures on one core. A test there takes up to three minutes of one.
slow: $(STAMP)
	$(BIN)/python -m pytest -m 'slow and cluster and not gpu and not torture'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --timeout 900 -m 'slow and not cluster and not gpu and not torture'

# Every network of the catalogue; about ten minutes on two idle cores.
exhaustive: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m exhaustive

# On a machine with a CUDA device that nobody else uses.
gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu

# Writes bench/results/torture.json; about 12 minutes on two idle cores.
torture: $(STAMP)
	WMREG_TORTURE_SEED=$(SEED) WMREG_TORTURE_PERCENT=$(PERCENT) WMREG_TORTURE_KEEP=1 \
		$(BIN)/python -m pytest -m torture -s tests/torture

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

coverage: $(STAMP)
	$(BIN)/coverage erase
	$(MAKE) test long COVERAGE=1
	$(MAKE) gate

gate: $(STAMP)
	@# Nodes that a test kills with SIGKILL leave broken data files; the reports below are the gate.
	-$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='registry/*' --fail-under=95
	$(BIN)/coverage report --fail-under=90

bench: $(STAMP)
	$(BIN)/python -m bench.$(NAME)

# Goes on where it stopped; data in ../shared/data or WMREG_BENCH_DATA. SETTING=small (two cores) or full (a GPU).
bench-paper: $(STAMP)
	$(BIN)/python -m bench.paper --setting $(SETTING)

# Each scheme's claims and all five on one network; about an hour on two idle cores, and it goes on where it stopped.
bench-schemes: $(STAMP)
	$(BIN)/python -m bench.schemes
	$(BIN)/python -m bench.schemes.report

# The reference pages anew, and the site into build/site; mkdocs comes with the extra "docs".
docs: $(STAMP)
	@$(BIN)/python -c 'import material' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python docs/tools/command_page.py
	$(BIN)/python docs/tools/api_page.py
	$(BIN)/python docs/tools/sdk_page.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Linters over deploy/; those that are no Python packages are skipped, loudly, where they are missing.
deploy-check: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[deploy]'
	PATH="$(abspath $(BIN)):$$PATH" deploy/check.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis $(REPORT)
