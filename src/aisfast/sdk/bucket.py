"""The official module path of `Bucket`."""

from aisfast.bucket import Bucket
from aisfast.unsupported import absent

__all__ = ["Bucket"]
__path__, __getattr__ = absent(__name__)
