# Two commands: `make demo` shows it work, `make test` shows that it is right. Each makes what it needs, in .venv.
# Needed beforehand: Python 3.10 or newer with venv, and a C compiler.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard src/aisfast/*.pyx src/aisfast/*.pxd)

.PHONY: demo test lint docs dist fuzz sanitize soak clean

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

# style and types; the stubs against the modules as compiled; the public names as a user's type checker sees them
lint: $(VENV)/tests
	$(BIN)/python -m pip install --quiet "aisfast[lint]"
	$(BIN)/python -m ruff check
	$(BIN)/cython-lint src/aisfast/*.pyx src/aisfast/*.pxd
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy.stubtest --allowlist .ci/stubtest.txt $(patsubst src/aisfast/%.pyx,aisfast.%,$(wildcard src/aisfast/*.pyx))
	$(BIN)/python -m pyright --pythonpath $(BIN)/python --warnings

# the pages of docs/ as HTML in build/docs
docs: $(VENV)/built
	$(BIN)/python -m pip install --quiet "aisfast[docs]"
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs build/docs

# the source distribution, the wheel built from it, and the checks of what is in them
dist: $(VENV)/tests
	rm -rf dist
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build
	$(BIN)/python -m pytest tests/test_package.py -k distribution

# the compiled modules made in another way, each in a directory of its own
INSTRUMENTED = $(BIN)/python setup.py --quiet build --build-lib build/$@ --build-temp build/$@.tmp
BUILD_TOOLS = "setuptools>=77" "cython>=3.1,<4"

# all targets of tests/fuzz, guided by coverage; what they find of interest is added to build/corpus
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/tests
	$(BIN)/python -m pip install --quiet $(BUILD_TOOLS) "atheris>=2.3"
	AISFAST_SANITIZE=coverage $(INSTRUMENTED)
	for target in head chunked multipart tar delivery; do \
		mkdir -p build/corpus/$$target && \
		PYTHONPATH=build/$@ $(BIN)/python tests/fuzz/fuzz.py --target=$$target build/corpus/$$target \
			tests/fuzz/corpus/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=9000 -timeout=10 \
			-artifact_prefix=build/ > build/fuzz-$$target.log 2>&1 || { tail -n 40 build/fuzz-$$target.log; exit 1; }; \
		echo "$$target: $$(grep -E 'INITED|DONE' build/fuzz-$$target.log)"; \
	done

# what reads bytes of others, under AddressSanitizer and UndefinedBehaviorSanitizer;
# not what measures time or memory
SANITIZED := $(addprefix tests/test_,$(addsuffix .py,decode_http decode_multipart decode_tar decode_captures properties \
	fuzz delivery delivery_captures lifetime columns limits batch faults transport))
sanitize: $(VENV)/tests
	$(BIN)/python -m pip install --quiet $(BUILD_TOOLS)
	AISFAST_SANITIZE=1 $(INSTRUMENTED)
	LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
		UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=build/$@ $(BIN)/python -m pytest $(SANITIZED) \
		-k "not linear_time and not no_leak and not memory_while and not memory_of and not always and not pauses"

soak: $(VENV)/tests
	$(BIN)/python tests/soak.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info src/aisfast/*.c src/aisfast/*.so
