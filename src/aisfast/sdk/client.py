"""The official module path of `Client`."""

from aisfast.client import Client

__all__ = ["Client"]
