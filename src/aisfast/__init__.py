"""aisfast: a fast, exact, drop-in Python client for NVIDIA AIStore's GetBatch API.

Importing it costs little: urllib3, numpy and the compiled modules are loaded when a name that needs them is first used.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from aisfast.accelerate import accelerate  # at once: as a module of that name it would hide the function
from aisfast.errors import (
    AISConnectionError,
    AISError,
    AISTimeoutError,
    ErrBckAlreadyExists,
    ErrBckNotFound,
    ErrObjNotFound,
    ErrRangeNotSatisfiable,
    IncompleteBatchError,
    LimitError,
    UnsupportedVersionError,
    WireError,
    this_process,
)
from aisfast.policy import Policy
from aisfast.version import __version__

if TYPE_CHECKING:
    from aisfast._items import Item
    from aisfast.batch import Batch
    from aisfast.bucket import Bucket
    from aisfast.client import Client
    from aisfast.columns import Columns
    from aisfast.object import Object

__all__ = [
    "AISConnectionError",
    "AISError",
    "AISTimeoutError",
    "Batch",
    "Bucket",
    "Client",
    "Columns",
    "ErrBckAlreadyExists",
    "ErrBckNotFound",
    "ErrObjNotFound",
    "ErrRangeNotSatisfiable",
    "IncompleteBatchError",
    "Item",
    "LimitError",
    "Object",
    "Policy",
    "UnsupportedVersionError",
    "WireError",
    "__version__",
    "accelerate",
]

_HOMES = {
    "Batch": "aisfast.batch",
    "Bucket": "aisfast.bucket",
    "Client": "aisfast.client",
    "Columns": "aisfast.columns",
    "Item": "aisfast._items",
    "Object": "aisfast.object",
}


def _name_process(record: logging.LogRecord) -> bool:
    """Say in a log's line which process of its job wrote it."""
    if process := this_process():
        record.msg = f"{record.msg} ({process})"
    return True


_log = logging.getLogger("aisfast")
_log.addHandler(logging.NullHandler())
_log.addFilter(_name_process)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'aisfast' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
