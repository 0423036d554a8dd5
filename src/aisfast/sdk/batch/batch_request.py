"""The official module path of `BatchRequest` (1.15.1 to 1.16)."""

from aisfast.legacy import BatchObjectRequest, BatchRequest

__all__ = ["BatchObjectRequest", "BatchRequest"]
