"""The official module path of `BatchLoader` (1.15.0)."""

from aisfast.legacy import BatchLoader
from aisfast.unsupported import absent

__all__ = ["BatchLoader"]
__path__, __getattr__ = absent(__name__)
