"""The official module path of `ObjectProps`."""

from aisfast.object import ObjectProps
from aisfast.unsupported import absent

__all__ = ["ObjectProps"]
__path__, __getattr__ = absent(__name__)
