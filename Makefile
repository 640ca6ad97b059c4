# make demo    a real scene with labels, from scan to report in results/demo
# make test    every check that CI runs
# make lint    only the checks of form
#
# Each makes .venv first: by uv where it is present, else by venv and pip (`make test UV=` does without uv).
#
# PYTHON=python3.12     another interpreter
# TORCH_BACKEND=auto    torch for the GPU that this machine has; the default, cpu, downloads no CUDA. Any value
#                       that `uv pip install --torch-backend` knows will do, such as cu128. For a .venv that
#                       stands already: rm -r .venv

PYTHON ?= python3
TORCH_BACKEND ?= cpu
UV ?= $(shell command -v uv)

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
DATA := results/demo-data

.PHONY: demo test lint
.SILENT:

demo: $(INSTALLED)
	$(BIN)/python -m sass.demo $(DATA)
	$(BIN)/sass scan '$(DATA)/scenes/{scene}/lsat7_2000_{band}.tif' --labels '$(DATA)/labels/*.tif' \
		--into results/demo --config config/demo.yaml
	$(BIN)/snakemake --configfile config/demo.yaml --quiet all
	$(BIN)/python -m sass.demo --summary results/demo

test: lint
	$(BIN)/python -m pytest -q

lint: $(INSTALLED)
	$(BIN)/ruff check --quiet
	$(BIN)/snakefmt --check --compact-diff Snakefile workflow
	$(BIN)/snakemake --lint

# pip takes torch from the package index, where the build for Linux is the one with CUDA, several GB. Unless pip
# knows of a CPU build, uv comes into .venv first and finds one.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "SASS needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: name another, as in make PYTHON=python3.12 $(MAKECMDGOALS)" % sys.version_info[:2])'
	echo "Installing into $(VENV), once ..."
	set -e; uv="$(UV)"; \
	if [ -n "$$uv" ]; then \
		"$$uv" venv --quiet --allow-existing --python '$(PYTHON)' $(VENV); \
	else \
		$(PYTHON) -m venv $(VENV); \
		if [ '$(TORCH_BACKEND)' != cpu ] || { [ "$$(uname)" = Linux ] && \
			! $(BIN)/python -m pip index versions torch 2>/dev/null | grep -q '[ ,]$(TORCH)+cpu'; }; then \
			$(BIN)/python -m pip install --quiet uv; uv=$(BIN)/uv; \
		fi; \
	fi; \
	if [ -n "$$uv" ]; then \
		"$$uv" pip install --quiet --python $(BIN)/python --torch-backend '$(TORCH_BACKEND)' -c constraints.txt -e '.[dev]'; \
	else \
		$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'; \
	fi
	touch $@
