"""The official module path of `ObjectWriter`."""

from aisfast.object import ObjectWriter
from aisfast.unsupported import absent

__all__ = ["ObjectWriter"]
__path__, __getattr__ = absent(__name__)
