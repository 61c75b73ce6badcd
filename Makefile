# Two commands for a machine that has only git, Python (3.11 or later) and make:
#   make train    environment, install, then `rlvr train --task math`; ARGS='--seed 1' is passed on
#   make test     environment, install with the test extras, then linters, types and tests
# With CI=true, as continuous integration sets it, `make test` first installs and starts a container engine and builds the
# sandbox image, and tests that need them fail where they would else be skipped.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: train test sandbox bench bench-math bench-sandbox bench-structured clean

train: $(VENV)/.train
	$(BIN)/rlvr train --task math $(ARGS)

test: $(VENV)/.test $(if $(filter-out 0 false no off,$(CI)),sandbox)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest $(ARGS)

sandbox: $(VENV)/.test
	$(BIN)/rlvr sandbox setup --yes
	$(BIN)/rlvr sandbox build

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/vs_trl.py $(ARGS)

bench-math: $(VENV)/.peers
	$(BIN)/python benchmarks/math_verifier.py $(ARGS)

bench-sandbox: $(VENV)/.test
	$(BIN)/python benchmarks/sandbox.py --out benchmarks/results/sandbox.md $(ARGS)

bench-structured: $(VENV)/.test
	$(BIN)/python benchmarks/structured.py --out benchmarks/results/structured.md $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: rlvr needs Python 3.11 or later, this is $$($(PYTHON) --version 2>&1)" >&2; \
	  echo "hint: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 3; }
	$(PYTHON) -m venv $(VENV)

# Each stamp stands for one set of extras; it is made anew when the dependencies change.
$(VENV)/.%: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) build dist
