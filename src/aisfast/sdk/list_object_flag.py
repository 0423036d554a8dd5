"""The official module path of `ListObjectFlag`."""

from aisfast.enums import ListObjectFlag
from aisfast.unsupported import absent

__all__ = ["ListObjectFlag"]
__path__, __getattr__ = absent(__name__)
