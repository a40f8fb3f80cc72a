# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RAY_STAMP := $(VENV)/.installed-ray
PYTEST := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format bench gpu docs clean install

help: ## Show what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make the virtual environment and install everything into it

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "decodecli needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT= $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@

$(RAY_STAMP): $(STAMP)
	PIP_CONSTRAINT= $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev,ray]'
	touch $@

demo: $(STAMP) ## Generate text with the built-in model, every step in view
	$(BIN)/decodecli generate --temperature 1.4 --top-p 0.9 --tables full

test: $(STAMP) ## Run the test suite
	$(PYTEST) -n 2

test-all: $(RAY_STAMP) ## Run every test, the slow ones and those on a Ray cluster too
	$(PYTEST) -n 2 -m ''

check: $(STAMP) ## Formatting, lint, types, import rules, docs in step
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/build.py --check

format: $(STAMP) ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure speed as ratios against named peers and write docs/BENCHMARKS.md
	$(BIN)/python -m benchmarks $(BENCH) --report docs/BENCHMARKS.md

gpu: $(STAMP) ## With a CUDA device: run the gpu tests and benchmarks, write docs/BENCHMARKS_GPU.md
	$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "make gpu needs a CUDA device and a PyTorch built for it; this PyTorch sees none")'
	$(PYTEST) -m gpu
	$(BIN)/python -m benchmarks --device cuda --only decode --only bandwidth --only load --repeat 3 $(BENCH) --report docs/BENCHMARKS_GPU.md

docs: $(STAMP) ## Write docs/CLI.md, the pictures and docs/TOUR.md from real runs
	$(BIN)/python docs/build.py

clean: ## Remove the virtual environment and everything that was built
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
