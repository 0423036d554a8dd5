"""The official module path of `Object`."""

from aisfast.object import BucketDetails, Object

__all__ = ["BucketDetails", "Object"]
