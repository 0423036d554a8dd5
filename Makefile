# Two commands: `make demo` shows it work, `make test` shows that it is right. Each makes what it needs, in .venv.
# Needed beforehand: Python 3.10 or newer with venv, and a C compiler.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard src/aisfast/*.pyx src/aisfast/*.pxd)

.PHONY: demo test lint dist clean

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

# style and types; the stubs against the modules as compiled
lint: $(VENV)/tests
	$(BIN)/python -m pip install --quiet "aisfast[lint]"
	$(BIN)/python -m ruff check
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy.stubtest --allowlist .ci/stubtest.txt $(patsubst src/aisfast/%.pyx,aisfast.%,$(wildcard src/aisfast/*.pyx))

# the source distribution, the wheel built from it, and the checks of what is in them
dist: $(VENV)/tests
	rm -rf dist
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build
	$(BIN)/python -m pytest tests/test_package.py -k distribution

clean:
	rm -rf $(VENV) build dist src/*.egg-info src/aisfast/*.c src/aisfast/*.so
