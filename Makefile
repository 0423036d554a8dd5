# Two commands: `make demo` shows it work, `make test` shows that it is right. Each makes what it needs, in .venv.
# Needed beforehand: Python 3.10 or newer with venv, and a C compiler.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard src/aisfast/*.pyx src/aisfast/*.pxd)

.PHONY: demo test clean

demo: $(VENV)/built
	$(BIN)/python -m aisfast demo

test: $(VENV)/tests
	$(BIN)/python -m pytest

# editable, so that Python sources are used as they stand; the compiled modules are made again when theirs change
$(VENV)/built: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

# what is installed already satisfies the name: only what tests need is added
$(VENV)/tests: $(VENV)/built
	$(BIN)/python -m pip install --quiet "aisfast[test]"
	@touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info src/aisfast/*.c src/aisfast/*.so
