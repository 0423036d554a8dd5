"""The official module path of `Provider`."""

from aisfast.enums import Provider, provider_aliases

__all__ = ["Provider", "provider_aliases"]
