# Every target sets up what it needs: a .venv from requirements.txt, made once.
#   PYTHON=python3.12         which interpreter (3.11, 3.12 or 3.13)
#   ACCELERATOR=cpu|cuda13|tpu  which build of jax

PYTHON ?= python3
ACCELERATOR ?= cpu
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := runs/demo
DATA := data
# Two processes, each with whole files, since the tests of a file share what they set up.
IN_PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

REQUIREMENTS := requirements.txt $(if $(filter-out cpu,$(ACCELERATOR)),requirements/$(ACCELERATOR).txt)
STAMP := $(VENV)/installed-$(ACCELERATOR)

.PHONY: help demo test test-slow integration lint format docs check-docs lock clean-demo

help:
	@echo "make demo    draw the embedded data set, train five systems under one budget, compare them on a page"
	@echo "make test    run the tests (make test-slow: also those that take minutes)"
	@echo "make integration  sweeps on a real PostgreSQL and a real SLURM, which root gets from Debian's packages"
	@echo "make lint    ruff and the one-way rooms; make format: reformat"
	@echo "make docs    rewrite the generated pages and build the documentation: site/index.html"
	@echo "make lock    resolve requirements.txt anew from pyproject.toml"

$(STAMP): $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13; choose one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$(REQUIREMENTS))
	@touch $@

demo: $(STAMP)
	@$(RUN) main.py prepare fractal --data_dir=$(DATA)
	@$(RUN) main.py sweep --config=configs/sweeps/demo.py --workdir=$(DEMO) --config.set.data.data_dir=$(DATA)

clean-demo:
	rm -rf $(DEMO)

test: $(STAMP)
	@$(RUN) -m pytest $(IN_PARALLEL)

test-slow: $(STAMP)
	@$(RUN) -m pytest $(IN_PARALLEL) -m "not integration"

# Without root, and without the packages, what needs a server is skipped, and the reason printed.
integration: $(STAMP)
	@$(RUN) -c 'import psycopg' 2>/dev/null || $(RUN) -m pip install --quiet -r requirements/postgresql.txt
	@tests/integration/postgresql.sh install || true
	@tests/integration/slurm.sh install || true
	@$(RUN) -m pytest tests/integration -m integration

lint: $(STAMP)
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(VENV)/bin/lint-imports

format: $(STAMP)
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

# Material announces another generator on every build; the variable silences that.
BUILD_DOCS := NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet --strict

docs: $(STAMP)
	@$(RUN) -m tools.reference
	@$(RUN) -m tools.diagrams
	@$(RUN) -m tools.check_links
	@$(BUILD_DOCS)
	@echo "the documentation: site/index.html"

check-docs: $(STAMP)
	@$(RUN) -m tools.reference --check
	@$(RUN) -m tools.diagrams --check
	@$(RUN) -m tools.check_links
	@$(BUILD_DOCS) --site-dir "$${TMPDIR:-/tmp}/imagenet_repro-site"

# One resolution for all: the extras are resolved on top of the pins of requirements.txt.
lock: $(STAMP)
	@$(RUN) -m pip install --quiet uv
	@$(RUN) -m uv pip compile --quiet --universal --no-annotate --no-header pyproject.toml -o requirements.txt
	@for extra in cuda13 tpu tensorflow postgresql; do \
	  $(RUN) -m uv pip compile --quiet --universal --no-annotate --no-header --extra $$extra -c requirements.txt \
	    pyproject.toml -o requirements/$$extra.txt; done
