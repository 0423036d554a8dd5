"""The official module path of `ObjectProps`."""

from aisfast.object import ObjectProps

__all__ = ["ObjectProps"]
