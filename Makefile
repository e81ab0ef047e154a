# Two commands do all the set-up on a machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt
DATA ?=

.PHONY: demo test check help

help:
	@echo "make demo             pretrain on real digits without labels, evaluate with few labels, write the page"
	@echo "make demo DATA=photos the same on your own images"
	@echo "make test             every check and test"

demo: $(VENV)/ready-demo
	@$(BIN)/python -m selfsup.demo $(DATA)

test: $(VENV)/ready-test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyrefly check
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "selfsup needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)

# The stamps make the second run start at once; they are made anew when what is to be installed changes.
$(VENV)/ready-demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing selfsup into $(VENV) (once; a few minutes)"
	@$(PIP) --editable '.[ml,data]'
	@touch $@

$(VENV)/ready-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing selfsup and its test tools into $(VENV) (once; a few minutes)"
	@$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/ready-demo
