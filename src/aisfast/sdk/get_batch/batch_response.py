"""The official module path of `BatchResponseItem` (1.15.0)."""

from aisfast.legacy import BatchResponse, BatchResponseItem

__all__ = ["BatchResponse", "BatchResponseItem"]
