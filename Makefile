# Every target sets up what it needs: .venv is made on first use and again when pyproject.toml changes.

EXP ?= quickstart
PYTHON ?= python3
WORKERS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
# One extra, by the driver at hand: its CUDA version is what nvidia-smi prints on its last header line.
CUDA := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA.* Version: *\([0-9][0-9]*\)\..*/\1/p')
comma := ,
# The value of a variable as one argument of a command, whatever characters it has.
quoted = '$(subst ','\'',$(value $(1)))'
EXTRAS := dev$(if $(CUDA),$(comma)$(if $(filter 13 14 15,$(CUDA)),cuda13,cuda12))

.PHONY: help setup train figures tables docs notebooks test lint parity experiment readme clean kernel-check gpu-check bench bench-kernels bench-data baselines

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

setup: $(VENV)/installed ## Create .venv

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ($(EXTRAS)): a minute or two, once"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@echo '$(EXTRAS)' > $@

$(VENV)/installed-%: $(VENV)/installed
	@echo "Installing '$*' into $(VENV), once"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),$*]'
	@touch $@

# After Ctrl-C, make waits for the training to save its state, and then ends itself with SIGINT (130 in a shell), whatever the exit
# code of the training was.
train: setup ## Train EXP, a config of the package or a Python file [DATA=folder ARGS="--epochs 10 …"]
	@$(PY) -m alexnet_jax train $(call quoted,EXP) $(if $(value DATA),--data $(call quoted,DATA)) $(ARGS)

experiment: setup ## Run the study experiments/EXP.py
	@test -f experiments/$(call quoted,EXP).py || { echo 'name a study of experiments/README.md without .py: make experiment EXP=ablate'; exit 1; }
	@$(PY) experiments/$(call quoted,EXP).py $(ARGS)

figures: setup ## Draw kernels, predictions and retrieval of RUN, a run folder [ARGS="--to folder …"]
	@test -n $(call quoted,RUN) || { echo 'name a run folder: make figures RUN=runs/quickstart/…'; exit 1; }
	@$(PY) -m alexnet_jax figures $(call quoted,RUN) $(ARGS)

bench: $(VENV)/installed-parity ## Benchmark training steps on this CPU, with PyTorch (installed first)
	@$(PY) experiments/benchmarks/train_step.py

bench-data: $(VENV)/installed-parity ## Benchmark the data pipeline, with PyTorch's (installed first)
	@$(PY) experiments/benchmarks/data_pipeline.py $(ARGS)

tables: setup ## Print Tables 1 and 2 of the paper and its ablations: published, logged by its code, ours
	@$(PY) experiments/paper_tables.py

baselines: $(VENV)/installed-baselines ## Evaluate SIFT + Fisher vectors and sparse coding on DATA [ARGS="--images 30"]
	@test -n $(call quoted,DATA) || { echo 'name a data set: make baselines DATA=path/to/photos'; exit 1; }
	@$(PY) experiments/baselines/fisher_vectors.py --data $(call quoted,DATA) $(ARGS)
	@$(PY) experiments/baselines/sparse_coding.py --data $(call quoted,DATA) $(ARGS)

docs: $(VENV)/installed-docs ## Build the documentation; open site/index.html
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet $(ARGS)
	@echo site/index.html

notebooks: $(VENV)/installed-notebooks ## Run the notebooks of experiments/notebooks/
	@$(PY) -m pytest tests/experiments/test_notebooks.py
	@$(PY) -m pytest --nbmake --nbmake-timeout 900 -n $(WORKERS) experiments/notebooks/*.ipynb

readme: setup ## Write the tables of README.md and docs/ from experiments/results/
	@$(PY) experiments/result_tables.py

test: setup ## Run the tests, in WORKERS processes
	@$(PY) -m pytest -m 'not slow' -n $(WORKERS) --dist worksteal $(ARGS)

parity: $(VENV)/installed-parity ## Compare with PyTorch (installed first); compiled as in training
	@ALEXNET_TESTS_OPTIMIZE=1 $(PY) -m pytest tests/parity -n $(WORKERS) --dist worksteal $(ARGS)

kernel-check: setup ## Compile the kernels for several GPUs, without a GPU [ARGS=--quick]
	@$(PY) experiments/kernels/compile_check.py $(ARGS)

gpu-check: setup ## Check and time the kernels on this GPU [ARGS=--tiny on any device]
	@$(PY) experiments/kernels/gpu_check.py $(ARGS)

bench-kernels: setup ## Benchmark the operations on this CPU, against XLA's own form
	@$(PY) experiments/kernels/cpu_bench.py

lint: setup ## Check style, import directions and types
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(VENV)/bin/lint-imports
	@$(PY) -m pyright

clean: ## Delete .venv, but not data/ and runs/
	rm -rf $(VENV)
