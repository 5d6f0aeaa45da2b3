# make demo: train, evaluate and show an image.   make test: run the tests.   make docs-check: every example in
# README.md and docs/.   make docs: the docs site.   All install what they need into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/demo
# Address of the repository, for links from the docs site to files: that of the clone's origin, if it is on the web
ORIGIN := $(shell git config --get remote.origin.url | sed -n 's|^git@\([^:]*\):|https://\1/|; s|//[^@/]*@|//|; s|\.git$$||; /^https:/p')
REPO_URL ?= $(or $(ORIGIN),https://github.com/YOU/lightning-dyn-detector)

.PHONY: install demo test docs docs-check lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and f'Python 3.11 or newer is needed, this is {sys.version}; set PYTHON=')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[test,export]"
	touch $@

# One thread: with two, each waits for the other at every layer, and another job on one core makes training four times slower
demo: install
	@echo "This draws 800 images and trains on one CPU core for about a minute and a half. A line every few seconds has the time left."
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python train.py \
		--config configs/data/simple_shapes.yaml --config configs/demo.yaml --run_dir $(DEMO)

test: install lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

docs: $(VENV)/.docs
	REPO_URL="$(REPO_URL)" NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Look at it: $(BIN)/python -m http.server --directory build/site 8000, then http://localhost:8000"

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@

docs-check: install
	$(BIN)/python -m tests.docs_commands

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) *.egg-info build
