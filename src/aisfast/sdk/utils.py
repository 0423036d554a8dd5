"""The official module path of helpers: the one that programs around GetBatch use."""

from aisfast.client import parse_url
from aisfast.unsupported import absent

__all__ = ["parse_url"]
__path__, __getattr__ = absent(__name__)
