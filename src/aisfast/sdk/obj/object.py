"""The official module path of `Object`."""

from aisfast.object import BucketDetails, Object
from aisfast.unsupported import absent

__all__ = ["BucketDetails", "Object"]
__path__, __getattr__ = absent(__name__)
