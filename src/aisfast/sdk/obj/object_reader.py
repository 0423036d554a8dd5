"""The official module path of `ObjectReader`."""

from aisfast.object import ObjectReader

__all__ = ["ObjectReader"]
