"""The official module path of `BatchResponseItem` (1.15.1 to 1.16)."""

from aisfast.legacy import BatchResponse, BatchResponseItem

__all__ = ["BatchResponse", "BatchResponseItem"]
