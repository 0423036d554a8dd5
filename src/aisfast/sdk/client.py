"""The official module path of `Client`."""

from aisfast.client import Client
from aisfast.unsupported import absent

__all__ = ["Client"]
__path__, __getattr__ = absent(__name__)
