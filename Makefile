# make setup   a virtual environment in .venv with the pinned packages, and the compiled alignment search
# make demo    train a small voice on synthetic speech for some minutes, and hear it (ARGS="--steps 2000" goes on)
# make test    the whole test suite (ARGS="-k text" for a part, JOBS=8 for eight processes)
# make lint    style
#
# PYTHON=python3.12 chooses the Python of a new environment. Where there is no GPU, the smaller torch does:
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make setup

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
RUN = $(VENV)/bin/python
INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check -c requirements.lock

.PHONY: setup demo test lint

setup: $(VENV)/.installed $(VENV)/.built

demo: setup
	$(RUN) demo.py $(ARGS)

# One thread a process: the tests' networks are too small for more.
test: setup $(VENV)/.test-installed
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: $(VENV)/.test-installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# The files are stamps: what they stand for is up to date with what they depend on.
$(VENV)/.python:
	@$(PYTHON) -c '' || { echo "make: Python 3.10 to 3.13 is needed, and '$(PYTHON)' does not run: install it, or name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { echo "make: Python 3.10 to 3.13 is needed, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1): name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: '$(PYTHON)' has no venv: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	@echo "A virtual environment in $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python requirements.txt requirements.lock
	@echo "Installing the packages of requirements.txt; torch is large, this takes minutes"
	@$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.built: $(VENV)/.installed monotonic_align/core.pyx monotonic_align/setup.py
	@echo "Compiling the alignment search"
	@$(RUN) -c 'from monotonic_align import extension; extension.load()'
	@touch $@

$(VENV)/.test-installed: $(VENV)/.installed requirements-dev.txt requirements-extras.txt
	@echo "Installing what the tests need"
	@$(INSTALL) -r requirements.txt -r requirements-dev.txt
	@touch $@
