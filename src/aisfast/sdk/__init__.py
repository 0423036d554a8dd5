"""The official SDK's module paths and names, all of them the classes of this package.

`from aisfast.sdk import Client` in place of `from aistore.sdk import Client`. Names are loaded on first use.
Any other public name or module here says that it is no part of this package, and how to keep it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aisfast.sdk._modules import modules_of
from aisfast.unsupported import NotHere

if TYPE_CHECKING:
    from aisfast._items import MossOut
    from aisfast.batch import Batch
    from aisfast.bucket import AISSource, Bucket
    from aisfast.client import Client
    from aisfast.cluster import Cluster
    from aisfast.enums import ArchiveMode, Colocation, FLTPresence, ListObjectFlag, Provider
    from aisfast.legacy import BatchLoader, BatchObjectRequest, BatchRequest, BatchResponse, BatchResponseItem
    from aisfast.models import ArchiveConfig, MossIn, MossReq, MossResp, Namespace
    from aisfast.object import Object
    from aisfast.retry import ColdGetConf, RetryConfig

_HOMES = {
    "AISSource": "aisfast.bucket",
    "ArchiveConfig": "aisfast.models",
    "ArchiveMode": "aisfast.enums",
    "Batch": "aisfast.batch",
    "BatchLoader": "aisfast.legacy",
    "BatchObjectRequest": "aisfast.legacy",
    "BatchRequest": "aisfast.legacy",
    "BatchResponse": "aisfast.legacy",
    "BatchResponseItem": "aisfast.legacy",
    "Bucket": "aisfast.bucket",
    "Client": "aisfast.client",
    "Cluster": "aisfast.cluster",
    "ColdGetConf": "aisfast.retry",
    "Colocation": "aisfast.enums",
    "FLTPresence": "aisfast.enums",
    "ListObjectFlag": "aisfast.enums",
    "MossIn": "aisfast.models",
    "MossOut": "aisfast._items",
    "MossReq": "aisfast.models",
    "MossResp": "aisfast.models",
    "Namespace": "aisfast.models",
    "Object": "aisfast.object",
    "Provider": "aisfast.enums",
    "RetryConfig": "aisfast.retry",
}

__all__ = [
    "AISSource",
    "ArchiveConfig",
    "ArchiveMode",
    "Batch",
    "BatchLoader",
    "BatchObjectRequest",
    "BatchRequest",
    "BatchResponse",
    "BatchResponseItem",
    "Bucket",
    "Client",
    "Cluster",
    "ColdGetConf",
    "Colocation",
    "FLTPresence",
    "ListObjectFlag",
    "MossIn",
    "MossOut",
    "MossReq",
    "MossResp",
    "Namespace",
    "Object",
    "Provider",
    "RetryConfig",
]


NotHere.below(__name__, "aistore.sdk")
_module = modules_of(__name__)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    return _module(name)


def __dir__() -> list[str]:
    return sorted(__all__)
