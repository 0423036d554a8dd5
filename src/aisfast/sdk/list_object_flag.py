"""The official module path of `ListObjectFlag`."""

from aisfast.enums import ListObjectFlag

__all__ = ["ListObjectFlag"]
