# make demo: train, evaluate and show an image.   make test: run the tests.   make docs-check: every example in
# README.md and docs/.   All install what they need into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: install demo test docs-check lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and f'Python 3.11 or newer is needed, this is {sys.version}; set PYTHON=')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[test,export]"
	touch $@

demo: install
	$(BIN)/python train.py --config configs/data/shapes.yaml --config configs/demo.yaml --run_dir $(DEMO)

test: install lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

docs-check: install
	$(BIN)/python -m tests.docs_commands

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) *.egg-info build
