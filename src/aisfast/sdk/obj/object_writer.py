"""The official module path of `ObjectWriter`."""

from aisfast.object import ObjectWriter

__all__ = ["ObjectWriter"]
