"""The official module path of `Batch`."""

from aisfast.batch import Batch

__all__ = ["Batch"]
