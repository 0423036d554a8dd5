"""The official module path of `MultipartDecodeError`: a `WireError`, whose `layer` tells who objects."""

from aisfast.errors import WireError as MultipartDecodeError
from aisfast.unsupported import absent

__all__ = ["MultipartDecodeError"]
__path__, __getattr__ = absent(__name__)
