"""The official module path of `AISSource`."""

from aisfast.bucket import AISSource
from aisfast.unsupported import absent

__all__ = ["AISSource"]
__path__, __getattr__ = absent(__name__)
