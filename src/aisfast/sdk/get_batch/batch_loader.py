"""The official module path of `BatchLoader` (1.15.0)."""

from aisfast.legacy import BatchLoader

__all__ = ["BatchLoader"]
