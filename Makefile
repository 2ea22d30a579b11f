# `make demo` and `make test` need only Python 3.11 or newer, a C compiler and git; all else goes to .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-slurm slow lint bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.installed ## simulate, prepare, pretrain, fine-tune; predict new patients, explain, publish: all in demo/
	rm -rf demo
	$(BIN)/chiasma simulate demo/source --patients 300 --seed 0
	$(BIN)/chiasma prepare demo/source/cohort.yaml --out demo/cohort
	$(BIN)/chiasma pretrain configs/pretrain/tiny.yaml
	$(BIN)/chiasma finetune configs/finetune/tiny.yaml
	$(BIN)/chiasma simulate demo/new/source --patients 40 --seed 0 --after 300
	$(BIN)/chiasma prepare demo/new/source/cohort.yaml --out demo/new/cohort
	$(BIN)/chiasma predict demo/finetuned demo/new/cohort --out demo/new/predictions.parquet
	$(BIN)/chiasma explain demo/finetuned demo/new/cohort --out demo/new/explained
	$(BIN)/chiasma publish demo/finetuned --to demo/published --licence apache-2.0
	@echo
	@echo "Learned from 300 simulated patients, and tried on 40 who are new to it; what is published predicts without them."
	@echo "Open these pages in a browser:"
	@echo "  demo/cohort/summary.html      who the patients are, and what each of them lacks"
	@echo "  demo/pretrained/report.html   what the model learned before it was told any outcome"
	@echo "  demo/finetuned/report.html    how well it predicts subtype, response and survival, and what does better"
	@echo "  demo/new/explained/explanation.html   which genes, pathways and modalities moved the predictions of new patients"
	@echo "  demo/published/README.md      the model card of what others may use; demo/new/predictions.parquet has the table"

test: $(VENV)/.installed ## run the tests; ARGS='-k name' picks some
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test-slurm: $(VENV)/.installed ## run the tests that need a real SLURM; installs Debian's packages of it where it is not
	command -v slurmctld >/dev/null && command -v munged >/dev/null || { \
	    sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; $$sudo apt-get update; \
	    $$sudo apt-get install --yes --no-install-recommends slurm-wlm munge; }
	CHIASMA_TEST_SLURM=1 $(BIN)/python -m pytest -n 0 tests/slurm $(ARGS)

slow: $(VENV)/.installed ## run the tests that take minutes: the golden run, compiled steps, memory of the losses
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(VENV)/.installed-lint ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: $(VENV)/.installed ## run the benchmarks; each prints ratios and writes JSON
	@set -e; for bench in benchmarks/bench_*.py; do echo "+ $$bench"; $(BIN)/python "$$bench" $(ARGS); done

docs: $(VENV)/.installed-docs ## build the pages of docs/ as a site, in build/site
	$(BIN)/python docs/make_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml
	@echo "open build/site/index.html"

clean: ## remove what the other targets made, .venv included
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "chiasma needs Python 3.11 or newer, and '$(PYTHON)' is not; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --editable '.[test]' --constraint constraints.txt
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install --editable '.[test,docs]' --constraint constraints.txt
	@touch $@

$(VENV)/.installed-lint: $(VENV)/.installed
	$(PIP) install --editable '.[test,lint]' --constraint constraints.txt
	@touch $@
