"""The official module path of `Bucket`."""

from aisfast.bucket import Bucket

__all__ = ["Bucket"]
