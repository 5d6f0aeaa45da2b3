# make demo: train, evaluate and show an image.   make test: check style and types, run the tests.   make docs-check: every
# example in README.md and docs/.   make docs: the docs site.   make package: build the package, install and use it.
# All install what they need into .venv. With uv: make demo PIP="uv pip". Without CUDA: docs/install.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP ?= $(BIN)/pip
export VIRTUAL_ENV := $(abspath $(VENV))
DEMO := runs/demo
# Address of the repository, for links from the docs site to files: that of the clone's origin, if it is on the web
ORIGIN := $(shell git config --get remote.origin.url | sed -n 's|^git@\([^:]*\):|https://\1/|; s|//[^@/]*@|//|; s|\.git$$||; /^https:/p')
REPO_URL ?= $(or $(ORIGIN),https://github.com/YOU/lightning-dyn-detector)

.PHONY: install demo test docs docs-check package lint types clean

install: $(VENV)/.installed

$(BIN)/pip:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and f'Python 3.11 or newer is needed, this is {sys.version}; set PYTHON=')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	@echo "This installs PyTorch and more into $(VENV), up to 6 GB. It takes some minutes, once."
	$(PIP) install --disable-pip-version-check -e ".[test,export]"
	touch $@

# One thread: with two, each waits for the other at every layer, and another job on one core makes training four times slower
demo: install
	@echo "This draws 800 images and trains on one CPU core for about two minutes. A line every few seconds has the time left."
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python train.py \
		--config configs/data/simple_shapes.yaml --config configs/demo.yaml --run_dir $(DEMO)

test: install lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

docs: $(VENV)/.docs
	REPO_URL="$(REPO_URL)" NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Look at it: $(BIN)/python -m http.server --directory build/site 8000, then http://localhost:8000"

# The site is made from the text of the code: it needs no torch
$(VENV)/.docs: pyproject.toml | $(BIN)/pip
	$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" > $@-requirements.txt
	$(PIP) install --quiet --disable-pip-version-check -r $@-requirements.txt
	touch $@

docs-check: install
	$(BIN)/python -m tests.docs_commands

package: $(BIN)/pip
	$(PIP) install --quiet --disable-pip-version-check build
	rm -rf build/dist
	$(BIN)/python -m build --outdir build/dist
	for package in build/dist/*.whl build/dist/*.tar.gz; do \
		$(PYTHON) -m venv --clear build/empty && build/empty/bin/pip install --quiet --disable-pip-version-check "$$package[onnx]" \
		&& build/empty/bin/python -I .ci/check_package.py || exit 1; \
	done

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

clean:
	rm -rf $(VENV) *.egg-info build
