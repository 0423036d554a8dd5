"""The recorded answers of a real cluster: `captures.zip`, described in captures.md. Loaded once."""

from __future__ import annotations

import functools
import json
import re
import zipfile
from pathlib import Path
from typing import Any

_PACK = Path(__file__).with_name("captures.zip")


@functools.cache
def _all() -> dict[str, tuple[bytes, dict[str, Any]]]:
    with zipfile.ZipFile(_PACK) as pack:
        index = json.loads(pack.read("index.json"))
        return {name: (pack.read(f"{name}.http"), meta) for name, meta in index.items()}


def names(pattern: str | None = None) -> list[str]:
    """Names of the recordings, sorted; with a pattern, those in which it is found."""
    return sorted(name for name in _all() if pattern is None or re.search(pattern, name))


def load(name: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes from the socket and what is right about them. The dict is shared: do not change it."""
    return _all()[name]


def is_tar(name: str) -> bool:
    """Is it an answer in TAR format, or an error or redirect where nothing else was asked for?"""
    request = load(name)[1]["request"] or {}
    return request.get("mime") not in (".tgz", ".tar.gz", ".tar.lz4", ".zip")
