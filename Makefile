# Every target sets up what it needs: .venv is made on first use and again when pyproject.toml changes.

EXP ?= quickstart
PYTHON ?= python3

VENV := .venv
RUN := $(VENV)/bin/python
# One extra, by the driver at hand: its CUDA version is what nvidia-smi prints on its last header line.
CUDA := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: \([0-9]*\).*/\1/p')
comma := ,
EXTRAS := dev$(if $(CUDA),$(comma)$(if $(filter 13 14 15,$(CUDA)),cuda13,cuda12))

.PHONY: help setup train test lint parity experiment tables readme clean kernel-check gpu-check bench bench-kernels bench-data

help: ## What there is to do
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

setup: $(VENV)/installed ## Make .venv

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ($(EXTRAS)): a minute or two, once"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@echo '$(EXTRAS)' > $@

train: setup ## Train EXP, a file of experiments/ [DATA=folder ARGS="--epochs 10 …"]
	@$(RUN) -m alexnet_jax train $(EXP) $(if $(DATA),--data '$(DATA)') $(ARGS)

experiment: setup ## Run EXP, a file of experiments/ that is a program
	@$(RUN) experiments/$(EXP).py $(ARGS)

bench: setup ## Train the paper's network here beside PyTorch, which is installed first
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),parity]'
	@$(RUN) experiments/bench.py

bench-data: setup ## Measure the pipeline beside PyTorch's, which is installed first
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),parity]'
	@$(RUN) experiments/bench_data.py $(ARGS)

tables: setup ## Tables 1 and 2 of the paper and its ablations: published, logged by its code, ours
	@$(RUN) experiments/tables.py

readme: setup ## Make the README's tables from experiments/results/
	@$(RUN) experiments/readme.py

test: setup ## Pass the tests
	@$(RUN) -m pytest -m 'not slow' $(ARGS)

parity: setup ## Compare with PyTorch, which is installed first
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),parity]'
	@$(RUN) -m pytest tests/parity $(ARGS)

kernel-check: setup ## Compile the kernels for GPUs that need not be there [ARGS=--quick]
	@$(RUN) experiments/kernels/compile_check.py $(ARGS)

gpu-check: setup ## Are the kernels right and fast on this GPU? [ARGS=--tiny anywhere]
	@$(RUN) experiments/kernels/gpu_check.py $(ARGS)

bench-kernels: setup ## The operations on this CPU, against XLA's own form
	@$(RUN) experiments/kernels/cpu_bench.py

lint: setup ## Style and types
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m pyright

clean: ## Delete .venv; data/ and runs/ stay
	rm -rf $(VENV)
