# make setup   create a virtual environment in .venv with the pinned packages and the compiled alignment search
# make demo    speak, and teach the voice a new speaker in some minutes (ARGS="--steps 1000" continues)
# make test    run the tests (ARGS="-k text" for a part, JOBS=8 for eight processes)
# make test-all   run also the slow ones, which are further cases of other tests
# make lint    check style, format and types
# make evaluate-setup   install the packages of evaluate.py
# make hashes  write requirements-hashes.txt: the versions of requirements.lock with the hashes of all their files
#
# PYTHON=python3.12 chooses the Python of a new environment. Without a GPU the smaller PyTorch is enough:
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make setup

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
RUN = $(VENV)/bin/python
INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check -c requirements.lock

.PHONY: setup demo test test-all lint evaluate-setup hashes

setup: $(VENV)/.installed $(VENV)/.built

demo: setup
	$(RUN) demo.py $(ARGS)

# One thread for each process, because the networks of the tests are small.
test: setup $(VENV)/.test-installed
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-all:
	$(MAKE) test ARGS="-m 'slow or not slow' $(ARGS)"

lint: $(VENV)/.test-installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Resemblyzer names packages that do not build today, and requirements-evaluate.txt has what it imports.
evaluate-setup: setup
	$(INSTALL) -r requirements-evaluate.txt
	$(INSTALL) --no-deps Resemblyzer==0.1.4

hashes: setup
	$(INSTALL) uv
	$(RUN) -m uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate \
		--custom-compile-command "make hashes" -c requirements.lock requirements.txt requirements-dev.txt \
		-o requirements-hashes.txt

# These files are stamps. A stamp is newer than its dependencies if the step is up to date.
$(VENV)/.python:
	@$(PYTHON) -c '' || { echo "make: '$(PYTHON)' does not run. Install Python 3.10 to 3.13, or name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { echo "make: '$(PYTHON)' is $$($(PYTHON) -V 2>&1), but Python 3.10 to 3.13 is needed. Name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: '$(PYTHON)' has no venv module. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Creating a virtual environment in $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python requirements.txt requirements.lock
	@echo "Installing the packages of requirements.txt. PyTorch is large, so this takes minutes."
	@$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.built: $(VENV)/.installed monotonic_align/core.pyx monotonic_align/setup.py
	@echo "Compiling the alignment search"
	@$(RUN) -c 'from monotonic_align import extension; extension.load()'
	@touch $@

$(VENV)/.test-installed: $(VENV)/.installed requirements-dev.txt requirements-extras.txt
	@echo "Installing the packages of the tests"
	@$(INSTALL) -r requirements.txt -r requirements-dev.txt
	@touch $@
