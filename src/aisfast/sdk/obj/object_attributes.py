"""The official module path of `ObjectAttributes`."""

from aisfast.object import ObjectAttributes

__all__ = ["ObjectAttributes"]
