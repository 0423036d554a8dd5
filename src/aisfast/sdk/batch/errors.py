"""The official module path of `MultipartDecodeError`: a `WireError`, whose `layer` tells who objects."""

from aisfast.errors import WireError as MultipartDecodeError

__all__ = ["MultipartDecodeError"]
