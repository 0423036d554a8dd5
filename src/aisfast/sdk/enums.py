"""The official module path of enums."""

from aisfast.enums import Colocation, FLTPresence
from aisfast.unsupported import absent

__all__ = ["Colocation", "FLTPresence"]
__path__, __getattr__ = absent(__name__)
