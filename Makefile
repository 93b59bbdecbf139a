# What a fresh copy needs: `make test` and `make demo` install what the lock file pins into .venv by themselves.
# Another interpreter (3.11 or newer): make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
UV := $(BIN)/python -m uv

.PHONY: demo test slow browser lint faults benchmarks replay scale results lock clean
.DEFAULT_GOAL := test

demo: $(READY)
	$(BIN)/cskd-pipeline demo --out demo-run

# How many processes share the tests; one after the other: make test JOBS=0
JOBS ?= 2
PYTEST = $(BIN)/pytest --numprocesses $(JOBS) --dist worksteal

test: lint
	$(PYTEST)

slow: $(READY) browser
	$(PYTEST) -m slow

# In which a test looks at the pages of `report`.
browser:
	@which chromium || which google-chrome || \
	  (apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium >/dev/null)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Kill writers and damage stores, and count what is lost: docs/reliability.md.
KILLS ?= 200
FLIPS ?= 500
faults: $(READY)
	$(BIN)/python tests/faults/run.py --kills $(KILLS) --flips $(FLIPS)

# The tables of docs/benchmarks.md. DATA: a folder of real image sets; WORK: where logits are kept for a next time.
benchmarks: $(READY)
	$(BIN)/python benchmarks/labels.py --sets all --crops 8192 --records 1e4,1e5,1e6 --opening --write docs/benchmarks.md $(if $(DATA),--data-root $(DATA)) $(if $(WORK),--work $(WORK))

# The tables of replay, training steps, precompute and start-up there. DATA: a folder of real image sets.
replay: $(READY)
	$(BIN)/python benchmarks/replay.py $(if $(DATA),--data '$(DATA)/imagenet_sample/*.tar' --data $(DATA)/tiny_imagenet) --write docs/benchmarks.md
	$(BIN)/python benchmarks/steps.py $(if $(DATA),--data '$(DATA)/imagenet_sample/*.tar') --write docs/benchmarks.md
	$(BIN)/python benchmarks/objectives.py $(if $(DATA),--data '$(DATA)/imagenet_sample/*.tar') --write docs/benchmarks.md
	$(BIN)/python benchmarks/precompute.py $(if $(DATA),--data '$(DATA)/imagenet_sample/*.tar') --write docs/benchmarks.md
	$(BIN)/python benchmarks/start_up.py --write docs/benchmarks.md

# The table of many writers there.
scale: $(READY)
	$(BIN)/python benchmarks/scale.py --write docs/benchmarks.md

# The tables and plots of docs/results.md, from the rows of experiments/results alone.
results: $(READY)
	$(BIN)/python experiments/results.py --write docs/results.md

# Done again when the lock or the project's description changes. Every file that is downloaded must have the hash
# that the lock holds for it; uv installs far faster than pip does.
$(READY): requirements/uv.txt requirements/dev.txt pyproject.toml cskd_pipeline/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; name one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(READY)

# Both locks hold for every platform and hold no address. Add `--upgrade` by UPGRADE=--upgrade.
lock: $(READY)
	$(UV) pip compile pyproject.toml --extra dev $(LOCKING) -o requirements/dev.txt
	$(UV) pip compile requirements/uv.in $(LOCKING) -o requirements/uv.txt

LOCKING = --quiet --universal --generate-hashes --no-header --python-version 3.11 $(UPGRADE)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
