"""The official SDK's module paths and names, all of them the classes of this package.

`from aisfast.sdk import Client` in place of `from aistore.sdk import Client`. Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aisfast.unsupported import why_not

if TYPE_CHECKING:
    from aisfast._items import MossOut
    from aisfast.batch import Batch
    from aisfast.bucket import Bucket
    from aisfast.client import Client
    from aisfast.cluster import Cluster
    from aisfast.enums import ArchiveMode, Colocation, FLTPresence, ListObjectFlag, Provider
    from aisfast.legacy import BatchLoader, BatchObjectRequest, BatchRequest, BatchResponse, BatchResponseItem
    from aisfast.models import ArchiveConfig, MossIn, MossReq, MossResp, Namespace
    from aisfast.object import Object

_HOMES = {
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
}
_NOT_HERE = (
    "AISSource",
    "AuthNClient",
    "BlobDownloadConfig",
    "ColdGetConf",
    "DataShard",
    "Etl",
    "Job",
    "RetryConfig",
    "WaitResult",
)

__all__ = [
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
]


def __getattr__(name: str) -> Any:
    if name in _NOT_HERE:
        raise ImportError(why_not(f"aistore.sdk.{name}"))
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'aisfast.sdk' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
