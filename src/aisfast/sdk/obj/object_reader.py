"""The official module path of `ObjectReader`."""

from aisfast.object import ObjectReader
from aisfast.unsupported import absent

__all__ = ["ObjectReader"]
__path__, __getattr__ = absent(__name__)
