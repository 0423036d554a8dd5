"""The official module path of `Namespace`."""

from aisfast.models import Namespace
from aisfast.unsupported import absent

__all__ = ["Namespace"]
__path__, __getattr__ = absent(__name__)
