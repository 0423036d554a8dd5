"""The official module path of `BatchRequest` (1.15.0)."""

from aisfast.legacy import BatchObjectRequest, BatchRequest

__all__ = ["BatchObjectRequest", "BatchRequest"]
