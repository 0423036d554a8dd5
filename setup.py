"""The extensions and their flags; everything else is in pyproject.toml."""

import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = ["_blocks", "_decode", "_zip", "_request", "_items", "_delivery", "_official", "_arrow"]

debug = bool(os.environ.get("AISFAST_DEBUG"))
if sys.platform == "win32":
    compile_args = ["/Od" if debug else "/O2"]
else:
    compile_args = ["-O0", "-g", "-UNDEBUG"] if debug else ["-O3", "-g0"]
link_args: list[str] = []
extra_sources: list[str] = []
sanitize = os.environ.get("AISFAST_SANITIZE")
if sanitize == "coverage":  # for the fuzzer, and of no use without it
    compile_args += ["-fsanitize-coverage=trace-pc,trace-cmp"]
    extra_sources += ["tests/fuzz/coverage.c"]
elif sanitize:
    compile_args += ["-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    link_args += ["-fsanitize=address,undefined"]


def extension(name: str) -> Extension:
    sources = [f"src/aisfast/{name}.pyx", *extra_sources]
    return Extension(f"aisfast.{name}", sources, extra_compile_args=compile_args, extra_link_args=link_args)


setup(
    ext_modules=cythonize(
        [extension(name) for name in MODULES],
        compiler_directives={
            "language_level": 3,
            "embedsignature": True,
            "boundscheck": debug,
            "wraparound": False,
            "auto_pickle": False,  # classes hold pointers: those that can be pickled say how
        },
    )
)
