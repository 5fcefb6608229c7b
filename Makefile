# Every target sets up what it needs: a .venv from the pinned requirements, made once, with the newest supported Python
# that is found (tools/environment.sh). An existing .venv keeps its Python.
#   PYTHON=python3.12         which interpreter (3.11, 3.12 or 3.13); a .venv of another version is made anew
#   ACCELERATOR=cpu|cuda13|tpu  which build of jax

PYTHON ?=
ACCELERATOR ?= cpu
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := runs/demo
DATA := data
# Two processes, each with whole files, since the tests of a file share what they set up.
IN_PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
# Tests of the packages that compute with NumPy alone, which `make check` runs.
FAST_TESTS := tests/config tests/scoring tests/statistics tests/storage tests/cli/test_main.py tests/test_packaging.py

RUNTIME := requirements.txt $(if $(filter-out cpu,$(ACCELERATOR)),requirements/$(ACCELERATOR).txt)
RUNTIME_STAMP := $(VENV)/installed-$(ACCELERATOR)
DEV_STAMP := $(VENV)/installed-dev
DOCS_STAMP := $(VENV)/installed-docs
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check

.PHONY: FORCE help demo clean-demo test test-slow integration coverage check lint types docs check-docs format hooks lock

help:
	@echo "make demo         draw the embedded data set, train systems of four years under one budget, compare them"
	@echo "make test         run the tests (make test-slow: also those that take minutes)"
	@echo "make integration  run sweeps on a real PostgreSQL and a real SLURM, which root gets from Debian's packages"
	@echo "make check        format, lint, types and the fast tests, in about a minute"
	@echo "make lint         ruff, the import contract, spelling, types and the documentation (make format: reformat)"
	@echo "make coverage     run the tests and print the lines that they do not reach"
	@echo "make docs         rewrite the generated pages, run the notebook, and build site/index.html"
	@echo "make hooks        check each commit with pre-commit"
	@echo "make lock         resolve requirements.txt and requirements/ anew from pyproject.toml"

# Checked each time: its Python may be gone, or another one asked for. The file is younger only if it was made anew.
$(VENV)/made: FORCE
	@tools/environment.sh $(VENV) $(PYTHON)

FORCE:

$(RUNTIME_STAMP): $(VENV)/made $(RUNTIME)
	@echo "installing the requirements (once)"
	@$(INSTALL) $(addprefix -r ,$(RUNTIME))
	@touch $@

$(DEV_STAMP): $(RUNTIME_STAMP) requirements/dev.txt
	@echo "installing the tools for tests and lint (once)"
	@$(INSTALL) -r requirements/dev.txt -c requirements.txt
	@touch $@

$(DOCS_STAMP): $(RUNTIME_STAMP) requirements/docs.txt
	@echo "installing the tools for the documentation (once)"
	@$(INSTALL) -r requirements/docs.txt -c requirements.txt
	@touch $@

demo: $(RUNTIME_STAMP)
	@$(RUN) main.py prepare silhouettes --data_dir=$(DATA)
	@$(RUN) main.py sweep --config=configs/sweeps/demo.py --workdir=$(DEMO) --config.set.data.data_dir=$(DATA)

clean-demo:
	rm -rf $(DEMO)

test: $(DEV_STAMP)
	@$(RUN) -m pytest $(IN_PARALLEL)

test-slow: $(DEV_STAMP)
	@$(RUN) -m pytest $(IN_PARALLEL) -m "not integration"

# Without root, and without the packages, what needs a server is skipped, and the reason printed.
integration: $(DEV_STAMP)
	@$(RUN) -c 'import psycopg' 2>/dev/null || $(INSTALL) -r requirements/postgresql.txt
	@tests/integration/postgresql.sh install || true
	@tests/integration/slurm.sh install || true
	@$(RUN) -m pytest tests/integration -m integration

coverage: $(DEV_STAMP)
	@$(RUN) -m pytest $(IN_PARALLEL) --cov=imagenet_repro --cov-report=term-missing:skip-covered

check: $(DEV_STAMP)
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(VENV)/bin/lint-imports
	@$(MAKE) --no-print-directory types
	@$(RUN) -m pytest $(IN_PARALLEL) $(FAST_TESTS)

lint: $(DEV_STAMP)
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/codespell
	@$(MAKE) --no-print-directory types check-docs

types: $(DEV_STAMP)
	@$(VENV)/bin/pyright --pythonpath $(RUN)

# Material announces another generator at every build; the first variable silences that. `docs` runs the notebook, which
# takes about two minutes, and the last two are for it: where the package is, and columns that fit the page.
BUILD_DOCS := NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(CURDIR) JUPYTER_COLUMNS=80 $(RUN) -m mkdocs build --quiet --strict
docs: $(DOCS_STAMP)
	@$(RUN) -m tools.reference
	@$(RUN) -m tools.diagrams
	@$(RUN) -m tools.check_links
	@$(BUILD_DOCS)
	@echo "the documentation: site/index.html"

check-docs: $(DOCS_STAMP)
	@$(RUN) -m tools.reference --check
	@$(RUN) -m tools.diagrams --check
	@$(RUN) -m tools.check_links
	@RUN_NOTEBOOKS=false $(BUILD_DOCS) --site-dir "$${TMPDIR:-/tmp}/imagenet_repro-site"

format: $(DEV_STAMP)
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

hooks: $(DEV_STAMP)
	@$(VENV)/bin/pre-commit install

# One resolution for all: groups and extras are resolved on top of the pins of requirements.txt.
COMPILE := $(RUN) -m uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header
lock: $(RUNTIME_STAMP)
	@$(INSTALL) uv
	@$(COMPILE) pyproject.toml -o requirements.txt
	@$(COMPILE) --group dev -c requirements.txt -o requirements/dev.txt
	@$(COMPILE) --group docs -c requirements.txt -c requirements/dev.txt -o requirements/docs.txt
	@grep -v '^pillow==' requirements.txt > $(VENV)/trackio-constraints.txt # Trackio excludes Pillow 13
	@for extra in cuda13 tpu plan-tpu plan-gpu tensorflow postgresql weights text energy wandb mlflow trackio hub; do \
	  constraints=requirements.txt; [ $$extra != trackio ] || constraints=$(VENV)/trackio-constraints.txt; \
	  $(COMPILE) --extra $$extra -c $$constraints pyproject.toml -o requirements/$$extra.txt; done
