"""The official module path of `BatchRequest` (1.15.0)."""

from aisfast.legacy import BatchObjectRequest, BatchRequest
from aisfast.unsupported import absent

__all__ = ["BatchObjectRequest", "BatchRequest"]
__path__, __getattr__ = absent(__name__)
