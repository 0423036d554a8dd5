"""The official module path of `BatchResponseItem` (1.15.1 to 1.16)."""

from aisfast.legacy import BatchResponse, BatchResponseItem
from aisfast.unsupported import absent

__all__ = ["BatchResponse", "BatchResponseItem"]
__path__, __getattr__ = absent(__name__)
