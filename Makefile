# make demo    a real scene with labels, from scan to report in results/demo
# make test    every check that CI runs
# make test-full    the same and what takes too long for it: 50 runs killed in every stage, full disks, 2,000 scenes
# make lint    only the checks of form
# make docs    the documentation as a site in build/docs, to be read without a network
# make test-slurm    the demo and more on a real Slurm on this machine, byte for byte beside a local run; needs root
# make fuzz    ten minutes of CPU of mutated files for each of all that reads: headers, pixels, catalog, configuration, ...
# make bench   how near each stage comes to what the machine allows, and what it takes of memory; see bench/README.md
# make bench-full            the same with scenes of 1,000 megapixels, in half an hour
# make bench-quality         scores of SASS, its ablations and peers on the demo's scenes; see bench/README.md
# make bench-quality-full    the same with the default configuration and many more rows, for a GPU
# make bench-dag             what planning costs, from 10^3 to 10^6 scenes; see docs/scale.md
#
# Each makes .venv first: with uv where it is present, else with venv and pip.
#
# PYTHON=python3.12     another interpreter
# TORCH_BACKEND=auto    torch for the GPU that this machine has; the default, cpu, downloads no CUDA. Any value of
#                       `uv pip install --torch-backend` will do, such as cu128; an empty one takes whatever the
#                       package index gives. To change a .venv that stands, remove it first: rm -r .venv

PYTHON ?= python3
TORCH_BACKEND ?= cpu
UV ?= $(shell command -v uv)

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
PACKAGES := -c constraints.txt -e '.[dev,bench]'
DEMO := results/demo-data

# What the benchmarks are measured on: DATA=dir with images/*.jpg and labels/*.png of CLASSES classes, else the demo
CLASSES ?= 5
SUITE = $(if $(@:%-full=),small,full)
ifdef DATA
LABELLED = --scenes '$(DATA)/images/*.jpg' --labels '$(DATA)/labels/*.png' --classes $(CLASSES) \
	--name quality-$(SUITE)-$(notdir $(abspath $(DATA)))
else
LABELLED = --scenes '$(DEMO)/scenes/{scene}/lsat7_2000_{band}.tif' --labels '$(DEMO)/labels/*.tif' --classes 7 \
	--set ingest.resolution=14.25
endif

.PHONY: demo test test-full test-slurm fuzz lint docs bench bench-full bench-quality bench-quality-full bench-dag
.SILENT:

demo: $(INSTALLED)
	$(BIN)/python -m sass.demo $(DEMO)
	$(BIN)/sass scan '$(DEMO)/scenes/{scene}/lsat7_2000_{band}.tif' --labels '$(DEMO)/labels/*.tif' \
		--into results/demo --config config/demo.yaml
	$(BIN)/snakemake --configfile config/demo.yaml --quiet host rules reason
	$(BIN)/python -m sass.demo --summary results/demo

# two processes, each with whole files: what a file's tests share is made once
test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-full: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m ''

# `test` has all of it but the demo, which takes minutes
test-slurm: $(INSTALLED)
	$(BIN)/python -m pytest -q -m '' tests/slurm

fuzz: $(INSTALLED)
	$(BIN)/python tests/fuzz.py --minutes 10

bench bench-full: $(INSTALLED)
	$(BIN)/python -m sass.demo $(DEMO)
	$(BIN)/python -m bench.speed $(if $(@:%-full=),,--full) --labelled '$(DEMO)/scenes/{scene}/lsat7_2000_{band}.tif' \
		'$(DEMO)/labels/*.tif' 7 config/demo.yaml

bench-dag: $(INSTALLED)
	$(BIN)/python -m bench.dag

bench-quality bench-quality-full: $(INSTALLED)
	$(if $(DATA),,$(BIN)/python -m sass.demo $(DEMO))
	$(BIN)/python -m bench.quality $(SUITE) $(LABELLED)

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs
	echo build/docs/index.html

lint: $(INSTALLED)
	$(BIN)/ruff check --quiet --output-format concise
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

# The package index has torch for Linux with CUDA only, several GB. So uv is asked for the build, fetched first if it
# is not there; but where pip has been told of a CPU build, on a disk or an index of your own, pip takes that.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "SASS needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: name another, as in make PYTHON=python3.12 $(MAKECMDGOALS)" % sys.version_info[:2])'
	echo "Installing into $(VENV), once ..."
	set -e; uv='$(UV)'; \
	if [ -n "$$uv" ]; then "$$uv" venv --quiet --allow-existing --seed --python '$(PYTHON)' $(VENV); \
	else $(PYTHON) -m venv $(VENV); fi; \
	pip="$(BIN)/python -m pip"; \
	if [ '$(TORCH_BACKEND)' = cpu ] && $$pip index versions torch 2>/dev/null | grep -q '[ ,]$(TORCH)+cpu'; then \
		uv=; \
	elif [ -z "$$uv" ] && [ -n '$(TORCH_BACKEND)' ] && [ "$$(uname)" = Linux ]; then \
		$$pip install -qq uv; uv=$(BIN)/uv; \
	fi; \
	if [ -n "$$uv" ]; then \
		"$$uv" pip install --quiet --python $(BIN)/python $(TORCH_BACKEND:%=--torch-backend %) $(PACKAGES); \
	else \
		$$pip install -qq $(PACKAGES); \
	fi
	touch $@
