"""The official module path of `BatchLoader` (1.15.1 to 1.16)."""

from aisfast.legacy import BatchLoader

__all__ = ["BatchLoader"]
