"""Modules of a package as its attributes: the official packages import theirs, ours wait until one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType


def modules_of(package: str) -> Callable[[str], ModuleType]:
    """The package's `__getattr__`."""

    def getattr(name: str) -> ModuleType:
        if name.startswith("_"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return importlib.import_module(f"{package}.{name}")
        except ImportError as error:
            if error.name != f"{package}.{name}":
                raise  # one of our modules is here, and broken
            raise AttributeError(str(error)) from None

    return getattr
