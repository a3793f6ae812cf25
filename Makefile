# Every target sets up what it needs: .venv is made on first use and again when pyproject.toml changes.

EXP ?= quickstart
PYTHON ?= python3

VENV := .venv
PY := $(VENV)/bin/python
# One extra, by the driver at hand: its CUDA version is what nvidia-smi prints on its last header line.
CUDA := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: \([0-9]*\).*/\1/p')
comma := ,
EXTRAS := dev$(if $(CUDA),$(comma)$(if $(filter 13 14 15,$(CUDA)),cuda13,cuda12))

.PHONY: help setup train figures tables docs notebooks test lint parity experiment readme clean kernel-check gpu-check bench bench-kernels bench-data

help: ## What there is to do
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

setup: $(VENV)/installed ## Make .venv

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ($(EXTRAS)): a minute or two, once"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@echo '$(EXTRAS)' > $@

train: setup ## Train EXP, a config of the package or a Python file [DATA=folder ARGS="--epochs 10 …"]
	@$(PY) -m alexnet_jax train $(EXP) $(if $(DATA),--data '$(DATA)') $(ARGS)

experiment: setup ## Run the study experiments/EXP.py
	@$(PY) experiments/$(EXP).py $(ARGS)

figures: setup ## Draw what the network of RUN, a run folder, has learned [ARGS="--to folder …"]
	@test -n '$(RUN)' || { echo 'say which run: make figures RUN=runs/quickstart/…'; exit 1; }
	@$(PY) -m alexnet_jax figures '$(RUN)' $(ARGS)

bench: setup ## Train the paper's network here beside PyTorch, which is installed first
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),parity]'
	@$(PY) experiments/benchmarks/train_step.py

bench-data: setup ## Measure the pipeline beside PyTorch's, which is installed first
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),parity]'
	@$(PY) experiments/benchmarks/data_pipeline.py $(ARGS)

tables: setup ## Tables 1 and 2 of the paper and its ablations: published, logged by its code, ours
	@$(PY) experiments/paper_tables.py

docs: setup ## Build the documentation into site/; index.html is where it begins
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),docs]'
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet $(ARGS)
	@echo site/index.html

notebooks: setup ## Run the notebooks of experiments/notebooks/, which are made from the .py beside them
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),notebooks]'
	@$(PY) -m pytest tests/test_notebooks.py
	@$(PY) -m pytest --nbmake --nbmake-timeout 900 experiments/notebooks/*.ipynb

readme: setup ## Make the tables of README.md and docs/ from experiments/results/
	@$(PY) experiments/result_tables.py

test: setup ## Pass the tests
	@$(PY) -m pytest -m 'not slow' $(ARGS)

parity: setup ## Compare with PyTorch, which is installed first
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),parity]'
	@$(PY) -m pytest tests/parity $(ARGS)

kernel-check: setup ## Compile the kernels for GPUs that need not be there [ARGS=--quick]
	@$(PY) experiments/kernels/compile_check.py $(ARGS)

gpu-check: setup ## Are the kernels right and fast on this GPU? [ARGS=--tiny anywhere]
	@$(PY) experiments/kernels/gpu_check.py $(ARGS)

bench-kernels: setup ## The operations on this CPU, against XLA's own form
	@$(PY) experiments/kernels/cpu_bench.py

lint: setup ## Style and types
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m pyright

clean: ## Delete .venv; data/ and runs/ stay
	rm -rf $(VENV)
