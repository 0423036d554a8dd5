"""The official module path of `ObjectAttributes`."""

from aisfast.object import ChunksInfo, ECInfo, ObjectAttributes
from aisfast.unsupported import absent

__all__ = ["ChunksInfo", "ECInfo", "ObjectAttributes"]
__path__, __getattr__ = absent(__name__)
